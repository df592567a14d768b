"""The reference pages of the documentation, made from the code: `make docs` writes them, a test compares them.

One file per page. Not part of the installed packages.
"""
