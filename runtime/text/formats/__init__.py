"""How families of models write thoughts and tool calls: recognised, presented, constrained and parsed. Pure."""
