"""A model of a model: each row's logits are a hash of its KV, and its KV remembers which kernel computed it.

ONNX Runtime computes a single token with another kernel than several at once, and the results differ in their last bits. Here they
differ altogether: a row that was moved wrongly, or reused what another kernel computed, answers something else.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_registry.records import Capability
from runtime.batching.engine import BatchingEngine, Limits
from runtime.batching.intake import Intake
from runtime.batching.slots import num_rows
from runtime.engines.fake import EOS, VOCAB_SIZE, ByteTokenizer
from runtime.engines.model_folder import GenerationDefaults
from runtime.protocol.messages import EngineOptions, ModelInfo
from tests.doubles.engine_bench import Clock, EngineBench
from tests.doubles.scripted_constraints import PlanCompiler

NOTHING = -1


class TwoKernelKV:
    """int32 [rows, context]: 2 x token + kernel. Memory is counted as `KVCache` does: what was touched, until it is freed."""

    bytes_per_token = 4

    def __init__(self, rows: int, context: int) -> None:
        self.held = np.full((rows, context), NOTHING, np.int32)
        self.touched = [0] * rows

    def write(self, row: int, start: int, tokens: NDArray[np.int32], kernel: int) -> None:
        self.held[row, start : start + len(tokens)] = 2 * tokens + kernel
        self.touched[row] = max(self.touched[row], start + len(tokens))

    def move(self, source: int, target: int) -> None:
        self.copy(source, target, self.touched[source])
        self.held[source] = NOTHING

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        self.held[target, :num_tokens] = self.held[source, :num_tokens]
        self.touched[target] = max(self.touched[target], num_tokens)

    def free(self, row: int) -> None:
        self.held[row] = NOTHING
        self.touched[row] = 0

    def backed_bytes(self) -> int:
        return sum(self.touched) * self.bytes_per_token


class TwoKernelRunner:
    """agree: both kernels compute the same, as those of a runtime without the difference."""

    def __init__(self, kv: TwoKernelKV, *, agree: bool = False) -> None:
        self.kv = kv
        self._single = 0 if agree else 1
        self.prefilled: list[tuple[int, int, int]] = []  # row, start, number of tokens

    def prefill(
        self, row: int, tokens: NDArray[np.int32], start: int, *, num_logits: int = 1, adapter: int = 0
    ) -> NDArray[np.float32]:
        self.kv.write(row, start, tokens, kernel=self._single if len(tokens) == 1 else 0)
        self.prefilled.append((row, start, len(tokens)))
        end = start + len(tokens)
        return np.stack([self._logits(row, length) for length in range(end - num_logits + 1, end + 1)])

    def decode(
        self, tokens: NDArray[np.int32], lengths: NDArray[np.int32], adapters: NDArray[np.int32] | None = None
    ) -> NDArray[np.float32]:
        for row, length in enumerate(lengths):
            self.kv.write(row, int(length) - 1, tokens[row : row + 1], kernel=self._single)
        return np.stack([self._logits(row, int(length)) for row, length in enumerate(lengths)])

    def _logits(self, row: int, length: int) -> NDArray[np.float32]:
        held = self.kv.held[row, :length]
        assert (held != NOTHING).all(), "a row was read where nothing was written"
        logits = np.random.default_rng(zlib.crc32(held.tobytes())).permutation(VOCAB_SIZE).astype(np.float32)  # none are close
        logits[EOS] += 2.5
        return logits

    def close(self) -> None:
        """Does nothing: there is nothing to release."""


def two_kernel_bench(*, tick: float = 0.0, context: int = 128, agree: bool = False, **options: Any) -> EngineBench:
    """Grammars are plans, see `scripted_constraints`."""
    chosen = EngineOptions(**options)
    clock = Clock(tick)
    runner = TwoKernelRunner(TwoKernelKV(num_rows(chosen.num_slots), context), agree=agree)
    info = ModelInfo(
        engine="two-kernels",
        provider="none",
        architecture="none",
        context_length=context,
        vocab_size=VOCAB_SIZE,
        num_slots=chosen.num_slots,
        threads=1,
        kv_bytes_per_token=4,
        capabilities=frozenset({Capability.COMPLETION}),
        load_s=0.0,
        resident_bytes=0,
        pid=0,
    )
    intake = Intake(
        ByteTokenizer(),
        None,
        defaults=GenerationDefaults(temperature=1.0, top_p=1.0),
        context_length=context,
        vocab_size=VOCAB_SIZE,
        clock=clock,
        eos_ids=frozenset({EOS}),
        compiler=PlanCompiler(VOCAB_SIZE),
    )
    limits = Limits(chosen, chosen.kv_budget_bytes or 1 << 30, frozenset({EOS}))
    return EngineBench(BatchingEngine(info, runner, intake, limits, resident_bytes=lambda: 0, clock=clock), clock)
