"""Foundry Local's sessions as an engine, through its SDK. From outside, `sessions` is used."""
