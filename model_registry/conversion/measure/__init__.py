"""What a model is worth and what its matrices are given: perplexity, the source's own logits, calibration."""
