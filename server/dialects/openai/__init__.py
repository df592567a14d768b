"""OpenAI's dialect: chat completions, completions, models. Wire shapes in, one internal request, wire shapes out."""
