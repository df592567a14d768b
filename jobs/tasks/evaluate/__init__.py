"""Questions, who answers them, what their answers are worth, and the report of it."""
