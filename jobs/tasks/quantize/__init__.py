"""Builds of one model at several precisions: which to try, what each is worth here, and which to take."""
