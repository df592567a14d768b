"""What is set before libraries that fetch and draw are imported: they look nothing up, and their bars stay out of the job's log."""

from __future__ import annotations

import os
import sys
from typing import Any

from jobs.tasks.vendors.hugging_face import use_no_hub_kernels


def be_offline() -> None:
    """For the rest of the process, whatever was imported before."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TQDM_DISABLE="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    use_no_hub_kernels()
    constants: Any = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # a download came before, and it reads its variables once
        constants.HF_HUB_OFFLINE = True
