"""The process that owns one engine: its loop, its intake threads, its heartbeat."""
