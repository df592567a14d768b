"""What is learned is written as it is served: the text before an answer equals the prompt of the same chat request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.datasets.examples import Completion, Conversation, Preference
from jobs.tasks.finetune.rendering import IGNORED, Renderer
from model_registry.pull import pull
from model_registry.records import Precision
from model_registry.registry import open_registry
from runtime.engines.model_folder import read_model_folder
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.messages import EngineOptions
from runtime.protocol.request import ChatPrompt
from runtime.text.chat_prompts import ChatFormats, ChatPrompts
from runtime.text.chat_template import ChatTemplate
from server.dialects.openai.translate import translate_chat
from server.dialects.openai.wire.chat import ChatRequest
from tests.doubles.tiny_gguf import Tiny, write_gguf

TURNS = "<|im_start|>{{ m.role }}\n{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>"
NATIVE = (
    "{% for t in tools or [] %}<tools>{{ t | tojson }}</tools>{% endfor %}{% for m in messages %}"
    + TURNS
    + "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LAST_ONLY = "{% for m in messages %}{{ loop.last }}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find",
            "description": "Finds a cat.",
            "parameters": {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]},
        },
    }
]
CALL = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"where": "in the"}'}}
MESSAGES: list[dict[str, Any]] = [
    {"role": "developer", "content": "the cat"},
    {"role": "user", "content": "in the"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "a cat"},
    {"role": "assistant", "content": "the cat"},
]


def served(folder: Path, template: str) -> Path:
    """The folder of a tiny model that is served with this chat template."""
    source = write_gguf(folder / "tiny.gguf", Tiny(metadata={"tokenizer.chat_template": template}))
    with open_registry(folder / "home") as registry:
        return pull(registry, str(source), name="tiny", precision=Precision.FP32).variants[0].folder


def served_prompt(folder: Path, messages: list[dict[str, Any]]) -> str:
    """Of a chat request with these messages, as a worker renders it."""
    body = {"model": "tiny", "messages": messages, "tools": TOOLS}
    prompt = translate_chat(ChatRequest.model_validate(body)).prompts[0]
    assert isinstance(prompt, ChatPrompt)
    model = read_model_folder(folder)
    template = ChatTemplate(model.chat_template or "", model.special_tokens)
    return ChatPrompts(template, ChatFormats.of(EngineOptions(), model.chat_template)).text(prompt)


@pytest.mark.parametrize("template", [NATIVE, PLAIN], ids=["native", "plain"])
def test_a_call_and_an_answer_are_learned_after_their_served_prompts(tmp_path: Path, template: str) -> None:
    folder = served(tmp_path, template)
    pieces = list(Renderer(folder)._turns(Conversation(1, MESSAGES, TOOLS)))
    texts = [text for text, _ in pieces]
    assert [is_learned for _, is_learned in pieces] == [False, True, False, True]
    assert texts[0] == served_prompt(folder, MESSAGES[:2])
    assert "".join(texts[:3]) == served_prompt(folder, MESSAGES[:4])
    assert "find" in texts[1]
    assert texts[3] == "the cat<|im_end|>\n"


def test_a_call_whose_content_is_left_out_is_the_same_call(tmp_path: Path) -> None:
    folder = served(tmp_path, NATIVE)
    bare = [{name: value for name, value in message.items() if value is not None} for message in MESSAGES]
    renderer = Renderer(folder)
    assert renderer.tokens(Conversation(1, bare, TOOLS)) == renderer.tokens(Conversation(1, MESSAGES, TOOLS))


def test_only_the_assistants_tokens_have_labels(tmp_path: Path) -> None:
    tokens = Renderer(served(tmp_path, NATIVE)).tokens(Conversation(1, MESSAGES, TOOLS))
    assert len(tokens.labels) == len(tokens.input_ids)
    assert all(label in (IGNORED, token) for token, label in zip(tokens.input_ids, tokens.labels, strict=True))
    assert 0 < tokens.num_learned < len(tokens.labels)


def test_a_template_that_writes_earlier_turns_again_is_refused(tmp_path: Path) -> None:
    renderer = Renderer(served(tmp_path, LAST_ONLY))
    user, answer = {"role": "user", "content": "in"}, {"role": "assistant", "content": "a"}
    with pytest.raises(InvalidRequest, match="rewrites earlier turns"):
        renderer.tokens(Conversation(1, [user, answer]))
    with pytest.raises(InvalidRequest, match="rewrites earlier turns"):
        renderer.preference(Preference(1, [user], "a", "the"))


def test_without_a_template_that_compiles_prompts_are_learned_as_texts_and_chats_are_refused(tmp_path: Path) -> None:
    renderer = Renderer(served(tmp_path, "{% for m in messages %}{{ m.content }"))
    assert renderer.tokens(Completion(1, "in", "out")).num_learned > 1
    with pytest.raises(InvalidRequest, match="does not compile: line 1"):
        renderer.tokens(Conversation(2, [{"role": "user", "content": "in"}, {"role": "assistant", "content": "a"}]))
