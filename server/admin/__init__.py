"""Routes that are slmops' own: models, adapters, jobs, keys, providers, probes. One file per noun."""
