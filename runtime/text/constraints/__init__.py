"""Answers of a guaranteed form: what a row may choose next, and what it must."""
