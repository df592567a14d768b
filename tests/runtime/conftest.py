"""Settings of the runtime's tests: hypothesis draws the same cases each time, and slow machines fail nothing."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "runtime", deadline=None, derandomize=True, database=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("runtime")
