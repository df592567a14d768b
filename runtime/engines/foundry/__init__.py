"""Foundry Local's sessions as an engine, through its SDK."""
