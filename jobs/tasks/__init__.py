"""The tasks themselves, one noun per file. Heavy libraries are imported inside functions, in a task's own process."""
