"""What Hugging Face's libraries need set before they are imported, and QLoRA's rounding by bitsandbytes.

They look nothing up, and their bars stay out of the job's log. Compiled code is not looked for on the hub, which transformers does
for layers by the package `kernels`, and bitsandbytes when it is imported (as PEFT does) on a CPU with AVX512-BF16: it would fetch
and load a library that nobody chose. Imports none of them at the top.
"""

from __future__ import annotations

import logging
import os
import sys
from importlib.util import find_spec
from typing import Any

from jobs.task import InvalidJob, Problem

_PACKAGE = "kernels"
_LOGGER = "bitsandbytes.backends.cpu.ops"  # it warns that it found none


def use_no_hub_kernels() -> None:
    """Hides the package `kernels` from libraries for the rest of the process. Call it before such libraries are imported."""
    os.environ["USE_HUB_KERNELS"] = "NO"
    modules: dict[str, Any] = sys.modules
    modules.setdefault(_PACKAGE, None)
    logging.getLogger(_LOGGER).setLevel(logging.ERROR)


def check_four_bits() -> None:
    """Raises InvalidJob when what rounds is not installed."""
    if find_spec("bitsandbytes") is None:
        message = "method qlora needs the package bitsandbytes. Install it with `pip install 'slmops[tune]'`."
        raise InvalidJob([Problem(message, param="method", code="missing_package")])


def in_four_bits(compute: Any) -> Any:
    """Quantizes as in the QLoRA paper: NF4, and its scales rounded to 8 bits. compute: the torch.dtype of the arithmetic."""
    import transformers

    config: Any = transformers.BitsAndBytesConfig
    return config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute)


def be_offline() -> None:
    """Keeps libraries from the network for the rest of the process, even those that were imported before."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    use_no_hub_kernels()
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # a download came before, and it reads its variables once
        constants.HF_HUB_OFFLINE = True
