"""A base whose matrices are held in 4 bits while adapters on it are learned (QLoRA, https://arxiv.org/abs/2305.14314).

Only what is trained on is rounded: the adapter is merged into the base's own weights. Imports PyTorch inside functions.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from jobs.job import InvalidJob, Problem


def check_four_bits() -> None:
    """Raises InvalidJob when what rounds is not installed."""
    if find_spec("bitsandbytes") is None:
        message = "method qlora needs the package bitsandbytes. Install it with `pip install 'slmops[tune]'`."
        raise InvalidJob([Problem(message, param="method", code="missing_package")])


def in_four_bits(compute: Any) -> Any:
    """As the paper has it: NF4, and its scales rounded to 8 bits. compute: the torch.dtype of the arithmetic."""
    import transformers

    config: Any = transformers.BitsAndBytesConfig
    return config(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute)
