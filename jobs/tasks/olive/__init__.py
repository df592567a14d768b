"""Olive's workflows as a job runs them: what is asked, what is silenced, what comes out."""
