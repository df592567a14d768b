"""What every request passes through: observation, security, limits on bodies, JSON, errors, event streams. Knows no dialect."""
