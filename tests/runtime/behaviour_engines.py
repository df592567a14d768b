"""The engines that run here, on the default model (the fake one on its script): who builds each, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runtime.engines.fake import build_fake_engine
from runtime.engines.foundry.sessions import build_foundry_engine
from runtime.engines.genai.library import build_genai_engine
from runtime.engines.onnx.engine import build_onnx_engine
from runtime.engines.protocol import Engine
from runtime.protocol.messages import EngineOptions, ProviderChoice
from runtime.protocol.request import ChatPrompt, Prompt, TextPrompt
from tests.doubles.engine_bench import Clock, EngineBench

CONTEXT = 2048
OPTIONS = EngineOptions(num_slots=4, threads=2, context_length=CONTEXT)


@dataclass(frozen=True)
class EngineUnderTest:
    """refuses: request fields that it does not know, by name. story, emoji: prompts with a long answer, and one of such characters.

    samples: whether its answer depends on chance.
    """

    build: Callable[[Path], Engine]
    refuses: frozenset[str] = frozenset()
    samples: bool = True
    story: Prompt = field(default_factory=lambda: _chat_prompt("Tell me a story about a farmer and the sea."))
    emoji: Prompt = field(default_factory=lambda: TextPrompt(text="🙂🙃🙂🙃🙂🙃🙂🙃🙂🙃🙂🙃"))

    def bench(self, folder: Path) -> EngineBench:
        return EngineBench(self.build(folder), Clock())


def _chat_prompt(text: str) -> ChatPrompt:
    return ChatPrompt(messages=[{"role": "user", "content": text}])


def _genai(folder: Path) -> Engine:
    return build_genai_engine(folder, OPTIONS, ProviderChoice())


def _genai_batches(folder: Path) -> Engine:
    """genai's own engine, on the CPU in its static groups: a section of the configuration selects it."""
    return _genai(with_engine_section(folder, folder.parent / "genai-batches"))


def _foundry(folder: Path) -> Engine:
    return build_foundry_engine(folder, OPTIONS, ProviderChoice())


def with_engine_section(folder: Path, target: Path) -> Path:
    """The same model, to be run by genai's own engine. Weights are linked."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).symlink_to(file)
    config = json.loads((folder / "genai_config.json").read_text())
    config["engine"] = {"static_batching": {"max_batch_size": OPTIONS.num_slots}}
    (target / "genai_config.json").unlink()
    (target / "genai_config.json").write_text(json.dumps(config))
    return target


NO_SCORED_PROMPTS = frozenset({"prompt_logprobs", "prediction"})
FOUNDRY_LACKS = NO_SCORED_PROMPTS | frozenset(
    {
        "grammar",
        "logprobs",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "min_tokens",
        "stop_token_ids",
        "ignore_eos",
    }
)
OWN_SAMPLING = NO_SCORED_PROMPTS | frozenset(
    {
        "grammar",
        "logprobs",
        "min_p",
        "typical_p",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "ignore_eos",
        "seed",
    }
)

ENGINES = {
    "onnx": EngineUnderTest(lambda folder: build_onnx_engine(folder, OPTIONS)),
    "genai": EngineUnderTest(_genai, refuses=NO_SCORED_PROMPTS),
    "genai batches": EngineUnderTest(_genai_batches, refuses=OWN_SAMPLING),
    "foundry": EngineUnderTest(_foundry, refuses=FOUNDRY_LACKS),
    "fake": EngineUnderTest(
        lambda folder: build_fake_engine(OPTIONS),
        samples=False,
        story=_chat_prompt("[[endless]]"),
        emoji=_chat_prompt("[[reply: 🙂🙃🙂🙃]]"),
    ),
}
