"""Olive's workflows as a job runs them: their request, their suppressed side effects, their output."""
