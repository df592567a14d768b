"""A version's model inside a job's process, by our own batching engine, without workers or HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from jobs.process_limits import lifted, widen
from jobs.task import JobFailure, TaskContext
from jobs.tasks.evaluate.questions import Answered, Question
from jobs.tasks.finetune.rendering import IGNORED, Tokens, arguments_of, chat_messages
from model_registry.records import Capability
from runtime.batching.slots import num_rows
from runtime.protocol.errors import InvalidRequest
from runtime.protocol.events import Finished, Started
from runtime.protocol.messages import EngineOptions, Submit
from runtime.protocol.request import ChatPrompt, Prompt, SamplingParams, TextPrompt, TokensPrompt
from runtime.text.formats.answer_parser import answer_parser
from runtime.text.formats.reader import ContentDelta, ToolCallArguments, ToolCallBegin
from runtime.text.formats.recognition import reasoning_format_by_name, tool_format_by_name

NUM_SLOTS = 8
_KV_PART = 4  # of the job's memory: what KV may use is one part of so many


class LocalModel:
    """Raises ValueError when the engine cannot run the folder. close() when done."""

    def __init__(self, folder: Path, context: TaskContext) -> None:
        from runtime.engines.onnx.engine import build_onnx_engine

        self._context = context
        budget = None if context.memory_bytes is None else context.memory_bytes // _KV_PART
        options = EngineOptions(num_slots=NUM_SLOTS, threads=context.threads, max_waiting=1 << 20, kv_budget_bytes=budget)
        with lifted():
            self.engine = build_onnx_engine(folder, options)
        self.info = self.engine.info
        self._reserved_bytes = self.info.kv_bytes_per_token * self.info.context_length * num_rows(NUM_SLOTS)
        widen(self._reserved_bytes)
        self._number = 0

    def resident_bytes(self) -> int:
        return int(psutil.Process().memory_info().rss)

    def answers(
        self, questions: Sequence[tuple[int, Question]], max_tokens: int, temperature: float = 0.0, seed: int = 0
    ) -> Iterator[tuple[int, Answered]]:
        prompts = [
            (
                number,
                self._prompt(question),
                SamplingParams(temperature=temperature, seed=seed + number if temperature else None, max_tokens=max_tokens),
            )
            for number, question in questions
        ]
        tools = {number: bool(question.tools) for number, question in questions}
        for number, text, started, _ in self.run(prompts):
            yield number, self._read(text, started, has_tools=tools[number])

    def run(self, prompts: Sequence[tuple[int, Prompt, SamplingParams]]) -> Iterator[tuple[int, str, Started, Finished]]:
        """Every request's text, in the order in which they end. Raises JobFailure when one cannot be answered, Stopped."""
        numbers: dict[int, int] = {}
        texts: dict[int, list[str]] = {}
        begun: dict[int, Started] = {}
        waiting = iter(prompts)
        while True:
            while len(numbers) < NUM_SLOTS and (following := next(waiting, None)) is not None:
                number, prompt, params = following
                self._number += 1
                numbers[self._number], texts[self._number] = number, []
                logprobs = params.prompt_logprobs is not None
                submit = Submit(request=self._number, prompt=prompt, params=params, return_prompt_token_ids=logprobs)
                try:
                    self.engine.add(self.engine.prepare(submit))
                except InvalidRequest as error:
                    message = f"Question {number + 1} cannot be asked of this model: {error.message}"
                    raise JobFailure(message, code=error.code or "request_failed") from error
            if not numbers:
                return
            self._context.check()
            report = self.engine.step()
            begun |= {started.request: started for started in report.started}
            for chunk in report.chunks:
                texts[chunk.request].append(chunk.text)
            if report.failed:
                raise JobFailure(f"A question could not be answered: {report.failed[0].message}", code="request_failed")
            for finished in report.finished:
                key = finished.request
                yield numbers.pop(key), "".join([*texts.pop(key), finished.text]), begun.pop(key), finished

    def losses(self, examples: Sequence[Tokens]) -> Iterator[tuple[int, float, int]]:
        """(number, negative log likelihood of what is learned of it in nats, tokens of that), in the order in which they end."""
        params = SamplingParams(max_tokens=0, prompt_logprobs=0)
        prompts = [(number, TokensPrompt(token_ids=each.input_ids), params) for number, each in enumerate(examples)]
        for number, _, started, _ in self.run(prompts):
            logprobs = started.prompt_logprobs or []
            learned = [
                found.logprob for found, label in zip(logprobs, examples[number].labels, strict=True) if found and label != IGNORED
            ]
            yield number, -sum(learned), len(learned)

    def close(self) -> None:
        self.engine.close()
        widen(-self._reserved_bytes)

    def _prompt(self, question: Question) -> Prompt:
        if question.prompt is not None and Capability.CHAT not in self.info.capabilities:
            return TextPrompt(text=question.prompt)
        return ChatPrompt(messages=chat_messages(question.messages), tools=[dict(tool) for tool in question.tools] or None)

    def _read(self, text: str, started: Started, *, has_tools: bool) -> Answered:
        info = self.info
        reasoning = reasoning_format_by_name(info.reasoning_format) if info.reasoning_format else None
        tools = tool_format_by_name(info.tool_format) if info.tool_format and has_tools else None
        if reasoning is None and tools is None:
            return Answered(text)
        parser = answer_parser(reasoning, tools, in_thought=started.in_thought)
        content: list[str] = []
        calls: list[tuple[str, list[str]]] = []
        for delta in [*parser.feed(text), *parser.finish()]:
            match delta:
                case ContentDelta(text=piece):
                    content.append(piece)
                case ToolCallBegin(name=name):
                    calls.append((name, []))
                case ToolCallArguments(index=index, text=piece):
                    calls[index][1].append(piece)
        return Answered("".join(content), tuple((name, arguments_of("".join(pieces))) for name, pieces in calls))
