"""A model with no weights: deterministic, scriptable, and run by the real engine. For tests, and for `--engine fake`.

Its tokens are bytes; its KV is the tokens themselves, so a row that was moved, copied or reused wrongly answers wrongly. It answers
`You said: <last user text>` and stops, unless the text contains directives:

    [[reply: TEXT]]        answers TEXT (escapes \\n and \\t), and stops
    [[count: N]]           answers with numbers up to N
    [[endless]]            answers `x` for ever
    [[delay: SECONDS]]     each decode step that holds this row takes so long; [[prefill-delay: SECONDS]] likewise
    [[fail]]               the step raises; [[crash]] ends the process at once; [[hang]] never returns
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable

import numpy as np
import psutil
from numpy.typing import NDArray

from model_registry.records import Capability
from runtime.batching.engine import BatchingEngine, Limits
from runtime.batching.intake import Intake
from runtime.batching.slots import num_rows
from runtime.engines.model_folder import GenerationDefaults
from runtime.protocol.messages import EngineOptions, ModelInfo
from runtime.text.chat_prompts import ChatFormats
from runtime.text.chat_template import ChatTemplate
from runtime.text.constraints.compiler import GrammarCompiler

USER, ASSISTANT, EOS = 256, 257, 258
VOCAB_SIZE = 259
CONTEXT_LENGTH = 8192
_SPECIAL = {"<|user|>": USER, "<|assistant|>": ASSISTANT, "<|eos|>": EOS}
_SPLIT = re.compile("(" + "|".join(re.escape(token) for token in _SPECIAL) + ")")
_DIRECTIVE = re.compile(r"\[\[([a-z-]+)(?:: ?((?:.|\n)*?))?\]\]")
_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}<|assistant|>{{ message.content }}<|eos|>"
    "{% else %}<|user|>{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class ByteTokenizer:
    """UTF-8 bytes are tokens 0..255; then the three special tokens."""

    longest_token = max(map(len, _SPECIAL))

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = []
        for piece in _SPLIT.split(text):
            ids.extend([_SPECIAL[piece]] if piece in _SPECIAL else piece.encode())
        return ids

    def decode(self, token_ids: list[int]) -> str:
        read = self.token_bytes(skip_special_tokens=False)
        return b"".join(map(read, token_ids)).decode(errors="replace")

    def token_bytes(self, *, skip_special_tokens: bool) -> Callable[[int], bytes]:
        names = {number: name.encode() for name, number in _SPECIAL.items()}

        def read(token: int) -> bytes:
            return bytes([token]) if token < 256 else b"" if skip_special_tokens else names[token]

        return read


class FakeKV:
    """KV rows that hold tokens: int32 [rows, context]."""

    bytes_per_token = 4

    def __init__(self, rows: int, context: int) -> None:
        self.tokens = np.full((rows, context), -1, np.int32)

    def move(self, source: int, target: int) -> None:
        self.tokens[target] = self.tokens[source]
        self.tokens[source] = -1

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        self.tokens[target, :num_tokens] = self.tokens[source, :num_tokens]

    def free(self, row: int) -> None:
        self.tokens[row] = -1

    def backed_bytes(self) -> int:
        return int((self.tokens >= 0).sum()) * self.bytes_per_token


class FakeRunner:
    """The script read as a model: each row's next token follows from the tokens in its KV, and from nothing else."""

    def __init__(self, *, rows: int, context: int, sleep: Callable[[float], None] = time.sleep) -> None:
        self.kv = FakeKV(rows, context)
        self._sleep = sleep
        self.prefilled: list[tuple[int, int, int]] = []

    def prefill(
        self, row: int, tokens: NDArray[np.int32], start: int, *, num_logits: int = 1, adapter: int = 0
    ) -> NDArray[np.float32]:
        end = start + len(tokens)
        self.kv.tokens[row, start:end] = tokens
        self.prefilled.append((row, start, len(tokens)))
        scripts = [_Script(self.kv.tokens[row, :length]) for length in range(end - num_logits + 1, end + 1)]
        self._sleep(scripts[-1].seconds("prefill-delay"))
        return self._logits(scripts)

    def decode(
        self, tokens: NDArray[np.int32], lengths: NDArray[np.int32], adapters: NDArray[np.int32] | None = None
    ) -> NDArray[np.float32]:
        for row, (token, length) in enumerate(zip(tokens, lengths, strict=True)):
            self.kv.tokens[row, length - 1] = token
        scripts = [_Script(self.kv.tokens[row, :length]) for row, length in enumerate(lengths)]
        self._sleep(max(script.seconds("delay") for script in scripts))
        return self._logits(scripts)

    def _logits(self, scripts: list[_Script]) -> NDArray[np.float32]:
        logits = np.zeros((len(scripts), VOCAB_SIZE), np.float32)
        for row, script in enumerate(scripts):
            script.misbehave()
            logits[row, script.next_token()] = 50.0
        return logits

    def set_threads(self, num_threads: int) -> None:
        """Does nothing: a script is read by one thread."""

    def close(self) -> None:
        """Does nothing: there is nothing to release."""


class _Script:
    """One row's tokens, read as a conversation."""

    def __init__(self, tokens: NDArray[np.int32]) -> None:
        marks = np.flatnonzero(tokens == ASSISTANT)
        end = int(marks[-1]) if len(marks) else len(tokens)
        users = np.flatnonzero(tokens[:end] == USER)
        user_ids = tokens[(int(users[-1]) + 1 if len(users) else 0) : end]
        self._user_text = bytes(user_ids[user_ids < 256].astype(np.uint8)).decode(errors="replace")
        self._num_answered = len(tokens) - end - 1 if len(marks) else 0
        self._directives: dict[str, str] = {m[1]: m[2] or "" for m in _DIRECTIVE.finditer(self._user_text)}

    def seconds(self, name: str) -> float:
        return float(self._directives.get(name, 0))

    def misbehave(self) -> None:
        if "fail" in self._directives:
            raise RuntimeError("the fake model failed as directed")
        if "crash" in self._directives:
            os._exit(139)
        if "hang" in self._directives:
            threading.Event().wait()

    def next_token(self) -> int:
        if "endless" in self._directives:
            return ord("x")
        answer = self._answer().encode()
        return answer[self._num_answered] if self._num_answered < len(answer) else EOS

    def _answer(self) -> str:
        if "reply" in self._directives:
            return self._directives["reply"].replace("\\n", "\n").replace("\\t", "\t")
        if "count" in self._directives:
            return " ".join(str(i) for i in range(1, int(self._directives["count"]) + 1))
        return f"You said: {self._user_text}"


def build_fake_engine(options: EngineOptions, *, clock: Callable[[], float] = time.monotonic) -> BatchingEngine:
    """A fake model behind the real engine. Its context is `options.context_length`, 8192 by default."""
    context = options.context_length or CONTEXT_LENGTH
    tokenizer, formats, eos_ids = ByteTokenizer(), ChatFormats.of(options, _TEMPLATE), frozenset({EOS})
    process = psutil.Process()
    info = ModelInfo(
        engine="fake",
        provider="FakeExecutionProvider",
        architecture="fake",
        context_length=context,
        vocab_size=VOCAB_SIZE,
        num_slots=options.num_slots,
        threads=options.threads or 1,
        kv_bytes_per_token=FakeKV.bytes_per_token,
        capabilities=frozenset({Capability.CHAT, Capability.COMPLETION, Capability.FORMS}),
        load_s=0.0,
        resident_bytes=process.memory_info().rss,
        pid=os.getpid(),
        can_set_threads=True,
        tool_format=formats.tools_name,
        reasoning_format=formats.reasoning_name,
    )
    return BatchingEngine(
        info,
        FakeRunner(rows=num_rows(options.num_slots), context=context),
        Intake(
            tokenizer,
            ChatTemplate(_TEMPLATE, {}),
            defaults=GenerationDefaults(temperature=1.0, top_p=1.0),
            context_length=context,
            vocab_size=VOCAB_SIZE,
            clock=clock,
            eos_ids=eos_ids,
            formats=formats,
            compiler=GrammarCompiler(tokenizer, eos_ids, VOCAB_SIZE),
        ),
        Limits(options, options.kv_budget_bytes or 1 << 30, eos_ids),
        resident_bytes=lambda: int(process.memory_info().rss),
        clock=clock,
    )
