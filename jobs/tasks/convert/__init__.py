"""Ways of converting that need training libraries, beside the registry's own importers."""
