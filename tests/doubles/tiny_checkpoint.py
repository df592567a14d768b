"""Tiny random checkpoints of any architecture that transformers knows, and a task's context to convert them in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.task import TaskContext
from jobs.tasks.evaluate.local_model import LocalModel
from model_registry.registry import open_registry
from runtime.engines.model_folder import read_model_folder
from runtime.engines.onnx.decoder import OnnxDecoder
from runtime.protocol.request import SamplingParams, TextPrompt
from tests.doubles.heard import RecordingReporter

_SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
_ENDS = {"vocab_size": 264, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "max_position_embeddings": 128}


@contextmanager
def task_context(home: Path, *, job: str = "job-1", offline: bool = False) -> Iterator[TaskContext]:
    """Its registry is under `home`; `context.reporter` is a RecordingReporter."""
    with open_registry(home) as registry:
        folder = home / "work" / job
        folder.mkdir(parents=True, exist_ok=True)
        yield TaskContext(job, registry, folder, RecordingReporter(), threads=1, offline=offline)


def write_checkpoint(folder: Path, kind: str = "llama", **more: Any) -> Path:
    """config.json, model.safetensors and a tokenizer of single bytes. kind: transformers' model type."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**_SHAPE, **_ENDS, **more}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0 if parameter.ndim > 1 else 1.0, 0.2)
    model.save_pretrained(folder)
    return folder


def source_logits(folder: Path, ids: Sequence[int]) -> NDArray[np.float32]:
    """By transformers, after the last of `ids`."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.inference_mode():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return np.asarray(model(input_ids=torch.tensor([list(ids)])).logits[0, -1].float().numpy())


def served_logits(folder: Path, ids: Sequence[int]) -> NDArray[np.float32]:
    """By our engine's decoder: all but the last as a prompt, then a step."""
    decoder = OnnxDecoder(read_model_folder(folder), num_slots=2, threads=1, context=64)
    decoder.prefill(0, np.array(ids[:-1], np.int32), 0)
    return decoder.decode(np.array(ids[-1:], np.int32), np.array([len(ids)], np.int32))[0].copy()


def answer(folder: Path, context: TaskContext) -> str:
    """What our whole engine answers to a text."""
    model = LocalModel(folder, context)
    try:
        params = SamplingParams(temperature=0.0, max_tokens=5, ignore_eos=True)
        return next(model.run([(0, TextPrompt(text="The printer"), params)]))[1]
    finally:
        model.close()
