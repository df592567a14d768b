"""Answers as models of each family write them, and their parsed contents."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from runtime.text.formats.reader import AnswerParser, ContentDelta, Delta, ReasoningDelta, ToolCallArguments, ToolCallBegin


@dataclass(frozen=True)
class Call:
    name: str
    arguments: str


@dataclass(frozen=True)
class ParsedAnswer:
    """The deltas of an answer, put together."""

    content: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)

    @classmethod
    def by(cls, deltas: Iterable[Delta]) -> ParsedAnswer:
        """Also asserts what every sequence of deltas keeps to."""
        content, reasoning, calls = "", "", list[Call]()
        for delta in deltas:
            match delta:
                case ContentDelta(text=text):
                    assert text
                    content += text
                case ReasoningDelta(text=text):
                    assert text
                    assert not content
                    assert not calls
                    reasoning += text
                case ToolCallBegin(index=index, name=name):
                    assert name
                    assert index == len(calls)
                    calls.append(Call(name, ""))
                case ToolCallArguments(index=index, text=text):
                    assert text
                    assert index == len(calls) - 1
                    calls[-1] = Call(calls[-1].name, calls[-1].arguments + text)
        return cls(content, reasoning, calls)


def read(parser: AnswerParser, pieces: Iterable[str]) -> ParsedAnswer:
    return ParsedAnswer.by([*(delta for piece in pieces for delta in parser.feed(piece)), *parser.finish()])


@dataclass(frozen=True)
class Recorded:
    what: str
    family: str
    text: str
    content: str = ""
    calls: tuple[tuple[str, str], ...] = ()

    @property
    def parsed(self) -> ParsedAnswer:
        return ParsedAnswer(self.content, "", [Call(*call) for call in self.calls])


WEATHER = '{"city": "Paris"}'
NESTED = '{"filter": {"tags": ["a}", "b\\"]"], "deep": {"x": [1, 2.5e3, true, null]}}, "n": -1}'
UNICODE = '{"text": "Grüße, 世界 👋 \\u00e9"}'

HERMES = (
    Recorded("text", "hermes", "The capital of France is Paris.\n", "The capital of France is Paris.\n"),
    Recorded(
        "call", "hermes", f'<tool_call>\n{{"name": "weather", "arguments": {WEATHER}}}\n</tool_call>', "", (("weather", WEATHER),)
    ),
    Recorded(
        "text before, several calls",
        "hermes",
        f'Let me look.\n\n<tool_call>\n{{"name": "weather", "arguments": {WEATHER}}}\n</tool_call>\n'
        f'<tool_call>\n{{"name": "search", "arguments": {NESTED}}}\n</tool_call>\n',
        "Let me look.",
        (("weather", WEATHER), ("search", NESTED)),
    ),
    Recorded(
        "arguments before the name, as Hermes 2 Pro writes",
        "hermes",
        f'<tool_call>\n{{"arguments": {UNICODE}, "name": "say"}}\n</tool_call>',
        "",
        (("say", UNICODE),),
    ),
    Recorded(
        "text after", "hermes", f'<tool_call>{{"name":"say","arguments":{UNICODE}}}</tool_call> Done.', "Done.", (("say", UNICODE),)
    ),
    Recorded(
        "cut in the arguments", "hermes", '<tool_call>\n{"name": "say", "arguments": {"text": "He', "", (("say", '{"text": "He'),)
    ),
    Recorded("cut in the name", "hermes", 'Well <tool_call>\n{"name": "sa', 'Well <tool_call>\n{"name": "sa'),
    Recorded("cut in the mark", "hermes", "Well <tool_", "Well <tool_"),
    Recorded("no arguments", "hermes", '<tool_call>\n{"name": "now"}\n</tool_call>', "", (("now", "{}"),)),
    Recorded(
        "arguments as text", "hermes", r'<tool_call>{"name": "f", "arguments": "{\"a\": 1}"}</tool_call>', "", (("f", '{"a": 1}'),)
    ),
    Recorded("no call in the tags", "hermes", "<tool_call>\nnone\n</tool_call>", "<tool_call>\nnone\n</tool_call>"),
    Recorded("no name", "hermes", ' <tool_call>{"arguments": {}}</tool_call>', ' <tool_call>{"arguments": {}}</tool_call>'),
    Recorded("an empty name", "hermes", '<tool_call>{"name": "", "arguments": {}}', '<tool_call>{"name": "", "arguments": {}}'),
    Recorded("a wrong bracket", "hermes", '<tool_call>{"name": "f", "arguments": {"a": [1}} x', "}} x", (("f", '{"a": [1'),)),
    Recorded(
        "the mark in a text",
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": "<tool_call>"}}',
        "",
        (("f", '{"a": "<tool_call>"}'),),
    ),
    Recorded(
        "a lost mark before a call",
        "hermes",
        f'<tool_call>so <tool_call>{{"name": "f", "arguments": {WEATHER}}}',
        "<tool_call>so",
        (("f", WEATHER),),
    ),
)

SMOLLM = (
    Recorded("text", "smollm", "I cannot do that.", "I cannot do that."),
    Recorded(
        "call", "smollm", f'<tool_call>[{{"name": "weather", "arguments": {WEATHER}}}]</tool_call>', "", (("weather", WEATHER),)
    ),
    Recorded(
        "several calls on lines of their own",
        "smollm",
        f'<tool_call>[\n{{"name": "weather", "arguments": {WEATHER}}},\n{{"name": "search", "arguments": {NESTED}}}\n]</tool_call>',
        "",
        (("weather", WEATHER), ("search", NESTED)),
    ),
    Recorded("nothing to call", "smollm", "<tool_call>[]</tool_call>", ""),
    Recorded("nothing to call, then text", "smollm", "<tool_call>[]</tool_call> It is 4.", "It is 4."),
    Recorded(
        "cut between calls",
        "smollm",
        f'<tool_call>[{{"name": "say", "arguments": {UNICODE}}}, {{"name"',
        ', {"name"',
        (("say", UNICODE),),
    ),
)

LLAMA3 = (
    Recorded("text", "llama3", "The answer is {42}.", "The answer is {42}."),
    Recorded("call", "llama3", f'{{"name": "weather", "parameters": {WEATHER}}}', "", (("weather", WEATHER),)),
    Recorded("special token", "llama3", f'<|python_tag|>{{"name": "search", "parameters": {NESTED}}}', "", (("search", NESTED),)),
    Recorded("with a type", "llama3", f'{{"type": "function", "name": "say", "parameters": {UNICODE}}}', "", (("say", UNICODE),)),
    Recorded(
        "several calls",
        "llama3",
        f'<|python_tag|>{{"name": "weather", "parameters": {WEATHER}}}; {{"name": "say", "parameters": {UNICODE}}}',
        "",
        (("weather", WEATHER), ("say", UNICODE)),
    ),
    Recorded(
        "text before the token",
        "llama3",
        f'Sure. <|python_tag|>{{"name": "say", "arguments": {UNICODE}}}',
        "Sure.",
        (("say", UNICODE),),
    ),
    Recorded("code", "llama3", "<|python_tag|>print('hi')", "<|python_tag|>print('hi')"),
    Recorded("JSON that is no call", "llama3", '{"name": "Alice", "age": 7}', '{"name": "Alice", "age": 7}'),
    Recorded("cut", "llama3", '{"name": "weather", "parameters": {"city": "Par', "", (("weather", '{"city": "Par'),)),
)

MISTRAL = (
    Recorded("text", "mistral", "Bonjour [toi].", "Bonjour [toi]."),
    Recorded("call", "mistral", f'[TOOL_CALLS] [{{"name": "weather", "arguments": {WEATHER}}}]', "", (("weather", WEATHER),)),
    Recorded(
        "several calls, with ids",
        "mistral",
        f'[TOOL_CALLS][{{"name": "weather", "arguments": {WEATHER}, "id": "VvvODy9mT"}}, '
        f'{{"name": "search", "arguments": {NESTED}, "id": "0UHqb9Ux2"}}]',
        "",
        (("weather", WEATHER), ("search", NESTED)),
    ),
    Recorded("named", "mistral", f"I look. [TOOL_CALLS]weather[ARGS]{WEATHER}", "I look.", (("weather", WEATHER),)),
    Recorded(
        "several named",
        "mistral",
        f"[TOOL_CALLS]weather[ARGS]{WEATHER}[TOOL_CALLS]say[ARGS]{UNICODE}",
        "",
        (("weather", WEATHER), ("say", UNICODE)),
    ),
    Recorded("named, with an id", "mistral", f"[TOOL_CALLS]say[CALL_ID]VvvODy9mT[ARGS]{UNICODE}", "", (("say", UNICODE),)),
    Recorded("named, without separator", "mistral", f"[TOOL_CALLS]say{UNICODE}", "", (("say", UNICODE),)),
    Recorded("cut", "mistral", '[TOOL_CALLS]say[ARGS]{"te', "", (("say", '{"te'),)),
    Recorded("no call", "mistral", "[TOOL_CALLS], or {not}", "[TOOL_CALLS], or {not}"),
)

PHI4 = (
    Recorded("text", "phi4", "functools is a module.", "functools is a module."),
    Recorded(
        "call", "phi4", f'<|tool_call|>[{{"name": "weather", "arguments": {WEATHER}}}]<|/tool_call|>', "", (("weather", WEATHER),)
    ),
    Recorded(
        "several calls",
        "phi4",
        f'Right away.\n<|tool_call|>[{{"name": "weather", "arguments": {WEATHER}}}, '
        f'{{"name": "search", "arguments": {NESTED}}}]<|/tool_call|>',
        "Right away.",
        (("weather", WEATHER), ("search", NESTED)),
    ),
    Recorded(
        "one object", "phi4", f'<|tool_call|>{{"name": "say", "arguments": {UNICODE}}}<|/tool_call|>', "", (("say", UNICODE),)
    ),
    Recorded("functools", "phi4", f'functools[{{"name": "say", "arguments": {UNICODE}}}]', "", (("say", UNICODE),)),
    Recorded("functools that is none", "phi4", "See functools[0] .", "See functools[0] ."),
    Recorded("cut", "phi4", '<|tool_call|>[{"name": "say", "arguments": {', "", (("say", "{"),)),
)


def fenced(name: str, arguments: str) -> str:
    return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>"


DEEPSEEK = (
    Recorded("text", "deepseek", "Paris < Rome", "Paris < Rome"),
    Recorded(
        "call", "deepseek", f"<｜tool▁calls▁begin｜>{fenced('weather', WEATHER)}<｜tool▁calls▁end｜>", "", (("weather", WEATHER),)
    ),
    Recorded(
        "several calls",
        "deepseek",
        f"I look.\n\n<｜tool▁calls▁begin｜>{fenced('search', NESTED)}\n{fenced('say', UNICODE)}<｜tool▁calls▁end｜>",
        "I look.",
        (("search", NESTED), ("say", UNICODE)),
    ),
    Recorded(
        "the shorter form of V3.1",
        "deepseek",
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{WEATHER}<｜tool▁call▁end｜>"
        f"<｜tool▁call▁begin｜>say<｜tool▁sep｜>{UNICODE}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
        (("weather", WEATHER), ("say", UNICODE)),
    ),
    Recorded("cut", "deepseek", '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>say<｜tool▁sep｜>{"a": [', "", (("say", '{"a": ['),)),
    Recorded(
        "cut in the name",
        "deepseek",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>sa",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>sa",
    ),
)

GEMMA = (
    Recorded("text", "gemma", "Hello 👋\n", "Hello 👋\n"),
    Recorded("call", "gemma", f'{{"name": "weather", "parameters": {WEATHER}}}', "", (("weather", WEATHER),)),
    Recorded("fenced", "gemma", f'```json\n{{"name": "search", "parameters": {NESTED}}}\n```\n', "", (("search", NESTED),)),
    Recorded("fenced as code", "gemma", f'```tool_code\n{{"name": "say", "parameters": {UNICODE}}}\n```', "", (("say", UNICODE),)),
    Recorded("code", "gemma", "```json\n[1, 2]\n```", "```json\n[1, 2]\n```"),
    Recorded("JSON that is no call", "gemma", '{"city": "Paris"}', '{"city": "Paris"}'),
    Recorded("cut", "gemma", '{"name": "say", "parameters": {"te', "", (("say", '{"te'),)),
)

GENERIC = (
    Recorded("text", "generic", "  Just text. ", "  Just text. "),
    Recorded("call", "generic", f'{{"tool_calls": [{{"name": "weather", "arguments": {WEATHER}}}]}}', "", (("weather", WEATHER),)),
    Recorded(
        "several calls",
        "generic",
        f'{{ "tool_calls" : [ {{"name": "say", "arguments": {UNICODE}}}, {{"arguments": {NESTED}, "name": "search"}} ] }}\n',
        "",
        (("say", UNICODE), ("search", NESTED)),
    ),
    Recorded("one object", "generic", f'{{"name": "say", "arguments": {UNICODE}}}', "", (("say", UNICODE),)),
    Recorded("an empty list", "generic", '{"tool_calls": []}', ""),
    Recorded("JSON that is no call", "generic", '{"tool_calls": 3}', '{"tool_calls": 3}'),
    Recorded("cut", "generic", '{"tool_calls": [{"name": "say", "arguments": {"a', "", (("say", '{"a'),)),
)

RECORDED = (*HERMES, *SMOLLM, *LLAMA3, *MISTRAL, *PHI4, *DEEPSEEK, *GEMMA, *GENERIC)
