"""What may be set: flags, environment, slmops.toml. Values with their bounds; starts nothing."""
