"""Instructions reach the model by its system role, or by the user's turn where its template has none."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.protocol.errors import InvalidRequest
from runtime.protocol.request import ChatPrompt
from runtime.text.chat_prompts import ChatFormats, ChatPrompts
from runtime.text.chat_template import ChatTemplate
from runtime.text.formats.recognition import TOOL_FORMATS

Message = dict[str, Any]

TURNS = "{% for m in messages %}GUARD<{{ m.role }}>{{ m.content }}\n{% endfor %}"
TAKES = TURNS.replace("GUARD", "")
REFUSES = TURNS.replace("GUARD", "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}")
DROPS = TURNS.replace("GUARD", "{% if m.role == 'system' %}{% continue %}{% endif %}")
ALTERNATES = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate') }}{% endif %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
)
SYSTEM: Message = {"role": "system", "content": "Be brief."}
USER: Message = {"role": "user", "content": "Hello"}
ANSWER: Message = {"role": "assistant", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def text(template: str, messages: list[Message], *, family: str = "generic", **prompt: Any) -> str:
    formats = ChatFormats(tools=TOOL_FORMATS[family])
    return ChatPrompts(ChatTemplate(template, {}), formats).text(ChatPrompt(messages=messages, **prompt))


def test_a_system_role_is_used_where_there_is_one() -> None:
    assert text(TAKES, [SYSTEM, USER]) == "<system>Be brief.\n<user>Hello\n"


@pytest.mark.parametrize("template", [REFUSES, DROPS, ALTERNATES], ids=["refuses", "drops", "alternates"])
def test_a_system_message_stands_in_the_first_turn_of_the_user_where_there_is_none(template: str) -> None:
    assert text(template, [SYSTEM, USER, ANSWER, USER]) == "<user>Be brief.\n\nHello\n<assistant>Hi\n<user>Hello\n"
    assert text(template, [USER]) == "<user>Hello\n"


@pytest.mark.parametrize("family", sorted(TOOL_FORMATS))
@pytest.mark.parametrize("template", [REFUSES, DROPS], ids=["refuses", "drops"])
def test_tools_are_taught_in_the_first_turn_of_the_user(template: str, family: str) -> None:
    shown = text(template, [USER], family=family, tools=[TOOL])
    assert shown.startswith("<user>")
    assert "weather" in shown
    assert shown.endswith("Hello\n")


def test_a_template_that_refuses_for_another_reason_still_does() -> None:
    with pytest.raises(InvalidRequest, match="No hello"):
        text(TAKES + "{{ raise_exception('No hello') }}", [SYSTEM, USER])


def test_whether_there_is_a_system_role_is_found_out_once() -> None:
    class Counted(ChatTemplate):
        num_rendered = 0

        def render(self, prompt: ChatPrompt) -> str:
            self.num_rendered += 1
            return super().render(prompt)

    template = Counted(REFUSES, {})
    prompts = ChatPrompts(template, ChatFormats())
    prompts.text(ChatPrompt(messages=[USER]))
    assert template.num_rendered == 1
    for _ in range(3):
        prompts.text(ChatPrompt(messages=[SYSTEM, USER]))
    assert template.num_rendered == 1 + 2 + 3
