"""Data of jobs: JSON Lines read and checked, with the line of everything that is wrong. Knows no training library.

From outside, `examples`, `lines` and `reading` are used.
"""
