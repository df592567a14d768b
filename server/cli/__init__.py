"""The command line: what a person types and reads in a terminal. Knows no tensors, no SQL.

`main` is the `slmops` program. One file per group of commands; libraries that take time to import are imported by the
command that needs them, so that `slmops version` answers at once.
"""

from server.cli.program import main

__all__ = ["main"]
