"""Routes that are slmops' own: probes, metrics, version, and the operation of loaded models."""
