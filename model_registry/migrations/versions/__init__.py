"""The revisions, oldest first by number. A published revision is never edited."""
