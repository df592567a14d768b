"""Templates render as their authors meant, and reach nothing outside their sandbox."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest

from runtime.protocol.errors import InvalidRequest
from runtime.protocol.request import ChatPrompt
from runtime.text.chat_template import ChatTemplate

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]


def render(source: str, messages: list[dict[str, Any]] | None = None, **prompt: Any) -> str:
    template = ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})
    return template.render(ChatPrompt(messages=HELLO if messages is None else messages, **prompt))


def test_a_conversation_and_the_opening_of_the_answer() -> None:
    assert render(CHATML) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert render(CHATML, add_generation_prompt=False) == "<|im_start|>user\nHello<|im_end|>\n"


def test_blocks_are_trimmed_as_hugging_face_does() -> None:
    assert render("{% if true %}\n  {% set x = 1 %}\nx{{ x }}\n{% endif %}\n") == "x1\n"


def test_special_tokens_tools_and_extra_names_are_there() -> None:
    source = "{{ bos_token }}{{ tools[0].name }}{{ thinking }}{{ eos_token }}"
    assert render(source, tools=[{"name": "f"}], template_kwargs={"thinking": "no"}) == "<s>fno</s>"


def test_extra_names_do_not_replace_the_messages() -> None:
    assert render("{{ messages[0].content }}", template_kwargs={"messages": "other"}) == "Hello"


def test_loop_controls() -> None:
    skipping = "{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}"
    assert render("{% for i in range(9) %}" + skipping + "{{ i }}{% endfor %}") == "023"


def test_tojson_keeps_characters_and_order() -> None:
    assert render("{{ messages[0].content | tojson }}", [{"content": {"b": "é<", "a": 1}}]) == '{"b": "é<", "a": 1}'
    assert render("{{ [1] | tojson(indent=2) }}") == "[\n  1\n]"


def test_strftime_now_is_today() -> None:
    before = datetime.now().astimezone().strftime("%d %b %Y")
    shown = render("{{ strftime_now('%d %b %Y') }}")
    assert shown in (before, datetime.now().astimezone().strftime("%d %b %Y"))


def test_a_template_that_refuses_says_why() -> None:
    with pytest.raises(InvalidRequest, match="System role not supported") as caught:
        render("{{ raise_exception('System role not supported') }}")
    assert (caught.value.field, caught.value.code) == ("conversation", "chat_template_error")


def test_a_template_that_does_not_compile_says_so_at_once() -> None:
    with pytest.raises(ValueError, match="does not compile"):
        ChatTemplate("{% for %}", {})
    with pytest.raises(ValueError, match=r"line 1: No filter named 'nosuch'$"):  # it becomes a part of a sentence
        ChatTemplate("{{ messages | nosuch }}", {})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__init__.__globals__ }}",
        "{{ ''['__class__'] }}",
        "{{ ''|attr('__class__') }}",
        "{{ (messages|attr('__class__'))|attr('__base__') }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ '{x.__class__}'.format_map({'x': messages}) }}",
        "{{ raise_exception.__globals__['json'] }}",
        "{{ strftime_now.__code__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ namespace.__init__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{% set _ = messages[0].pop('role') %}",
    ],
)
def test_the_sandbox_holds(source: str) -> None:
    """What is forbidden raises, or reads as undefined; nothing of Python comes out and the messages stay as they are."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
    try:
        shown = render(source, messages)
    except InvalidRequest:
        shown = ""
    assert not re.search(r"<|class|function|module|object at|uid=", shown)
    assert messages == HELLO


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10**9) %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9**9**9 }}",
        "{{ 'a' * 10**12 }}",
        "{{ [0] * 10**12 }}",
        "{% for i in range(99999) %}{{ 'a' * 99999 }}{% endfor %}",
    ],
)
def test_a_template_cannot_take_the_worker_down_by_size(source: str) -> None:
    with pytest.raises(InvalidRequest):
        render(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 / 0 }}",
        "{{ messages[0].nothing.at_all }}",
        "{{ messages[0].content | dictsort }}",
        "{{ messages + 1 }}",
        "{% include 'x' %}",
    ],
)
def test_messages_that_a_template_cannot_take_are_the_callers_error(source: str) -> None:
    with pytest.raises(InvalidRequest, match="refused these messages"):
        render(source)


@pytest.mark.parametrize("content", ["The capital", "m", "<|im_end|>", "user", "  padded  ", "The capital of France is "])
def test_a_final_message_is_continued(content: str) -> None:
    messages = [*HELLO, {"role": "assistant", "content": content}]
    shown = render(CHATML, messages, continue_final_message=True)
    assert shown.rstrip() == f"<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n{content}".rstrip()


def test_a_final_message_is_continued_also_where_the_template_trims() -> None:
    trimming = CHATML.replace("m.content }}", "m.content | trim }}")
    messages = [*HELLO, {"role": "assistant", "content": " The "}]
    assert render(trimming, messages, continue_final_message=True).endswith("assistant\nThe")


@pytest.mark.parametrize("messages", [[], [{"role": "assistant", "content": ""}], [{"role": "assistant"}]])
def test_nothing_to_continue_is_refused(messages: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        render(CHATML, messages, continue_final_message=True)
    assert caught.value.field == "continuation"


def test_a_final_message_that_the_template_drops_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        render("{{ messages[0].content }}", [*HELLO, {"role": "assistant", "content": "The"}], continue_final_message=True)
