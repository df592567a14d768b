"""Keeps libraries from looking for compiled code on the hub, which they do by the package `kernels` where it is installed.

transformers does so for layers, and bitsandbytes when it is imported (as PEFT does) on a CPU with AVX512-BF16: it would fetch and
load a library unasked. Imports none of them.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

_PACKAGE = "kernels"
_LOGGER = "bitsandbytes.backends.cpu.ops"  # it warns that it found none


def use_no_hub_kernels() -> None:
    """For the rest of the process; to be called before such libraries are imported. To them the package is not installed."""
    os.environ["USE_HUB_KERNELS"] = "NO"
    modules: dict[str, Any] = sys.modules
    modules.setdefault(_PACKAGE, None)
    logging.getLogger(_LOGGER).setLevel(logging.ERROR)
