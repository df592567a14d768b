"""The process that owns one engine: its loop, its intake threads, its heartbeat.

The pool starts it as `python -m runtime.worker.main`. Processes of jobs use `threads`.
"""
