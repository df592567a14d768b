"""Background work: what runs beside serving, e.g. measuring. No HTTP routes here, no tensors outside `jobs/tasks/`."""
