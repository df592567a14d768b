"""Jobs belong into processes of their own: what they set for the rest of theirs ends, in these tests, with the module."""

from __future__ import annotations

import os
from collections.abc import Iterator

import huggingface_hub.constants
import pytest


@pytest.fixture(scope="module", autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """Training and conversions go offline."""
    before, is_offline = dict(os.environ), huggingface_hub.constants.HF_HUB_OFFLINE
    yield
    os.environ.clear()
    os.environ.update(before)
    huggingface_hub.constants.HF_HUB_OFFLINE = is_offline
