"""Measurements of a model: perplexity, the source's own logits, and the inputs of its matrices (calibration)."""
