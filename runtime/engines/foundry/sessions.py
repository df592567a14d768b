"""Models served through Foundry Local's sessions. The only engine file that imports its SDK.

Foundry Local answers one request per session, and any number of sessions side by side; nothing is shared between them. A
session gets its request in the wire shape of OpenAI, since it then reserves KV for the prompt and the longest answer only, and
not for the model's whole context. What its options do not offer is refused: see `FoundryModel.check`.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from model_registry.errors import SourceUnavailable
from model_registry.sources.foundry import foundry_local
from runtime.batching.intake import Intake
from runtime.batching.sequence import ResolvedParams
from runtime.engines.foundry.folder import write_foundry_folder
from runtime.engines.foundry.text_engine import TextEngine
from runtime.engines.foundry.text_intake import Answered, TextIntake
from runtime.engines.model_folder import ModelFolder, read_model_folder
from runtime.machine.hardware import usable_cores
from runtime.protocol.errors import Field, InvalidRequest
from runtime.protocol.events import FinishReason
from runtime.protocol.messages import EngineOptions, ModelInfo, ProviderChoice
from runtime.protocol.request import SamplingParams

if TYPE_CHECKING:
    from foundry_local_sdk import FoundryLocalManager
    from foundry_local_sdk.imodel import IModel

CPU = "CPUExecutionProvider"
HOTTEST = 2.0
KV_ITEM_BYTES = 4  # graphs for the CPU keep KV as float32
_SEEDS = 1 << 31
_NO_FIELDS = (
    Field.PRESENCE_PENALTY,
    Field.FREQUENCY_PENALTY,
    Field.LOGIT_BIAS,
    Field.MIN_TOKENS,
    Field.STOP_TOKEN_IDS,
    Field.IGNORE_EOS,
    Field.LOGPROBS,
    Field.PROMPT_LOGPROBS,
    Field.PREDICTION,
    Field.THINKING_BUDGET,
)
_MODEL_ID = "slmops:1"


def build_foundry_engine(path: Path, options: EngineOptions, provider: ProviderChoice) -> TextEngine:
    """Loads the model. Raises ValueError (BadModelFolder, not installed, not on the CPU), or the SDK's exception."""
    began = time.monotonic()
    if provider.name != CPU:
        raise ValueError(f"Foundry Local runs on {CPU} here, not on {provider.name}: choose the genai engine for that provider")
    folder = read_model_folder(path)
    context = min(options.context_length or folder.context_length, folder.context_length)
    threads = options.threads or usable_cores()
    intake = TextIntake(Intake.of_folder(folder, context, options, constrains=False))
    model = FoundryModel(folder, context_length=context, threads=threads)
    decoder, process = folder.decoder, psutil.Process()
    info = ModelInfo(
        engine="foundry",
        provider=CPU,
        architecture=folder.architecture,
        context_length=context,
        vocab_size=folder.vocab_size,
        num_slots=options.num_slots,
        threads=threads,
        kv_bytes_per_token=2 * decoder.num_layers * decoder.kv_heads * decoder.head_size * KV_ITEM_BYTES,
        capabilities=intake.capabilities,
        chat_template_error=intake.template_error,
        load_s=time.monotonic() - began,
        resident_bytes=process.memory_info().rss,
        pid=os.getpid(),
        batches=False,
        tool_format=intake.formats.tools_name,
        reasoning_format=intake.formats.reasoning_name,
    )
    return TextEngine(
        info,
        model,
        intake,
        options,
        kv_budget_bytes=options.kv_budget_bytes or psutil.virtual_memory().available // 2,
        resident_bytes=lambda: int(process.memory_info().rss),
    )


class FoundryModel:
    """One model, registered in a local catalog of its own and loaded. Implements `TextModel`."""

    def __init__(self, folder: ModelFolder, *, context_length: int, threads: int) -> None:
        with contextlib.ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slmops-foundry-model-")))
            shown = work / "model"
            write_foundry_folder(folder, shown, context_length=context_length, threads=threads)
            try:
                manager = stack.enter_context(foundry_local(work / "cache"))
            except SourceUnavailable as error:
                raise ValueError(error.message) from error
            self._model = _register(manager, shown)
            self._model.load()
            stack.callback(self._model.unload)
            self._open = stack.pop_all()

    def check(self, requested: SamplingParams) -> None:
        neutral = SamplingParams()
        for field in _NO_FIELDS:
            if getattr(requested, field) != getattr(neutral, field):
                raise _unsupported(field)
        for field, off in ((Field.MIN_P, 0.0), (Field.TYPICAL_P, 1.0), (Field.REPETITION_PENALTY, 1.0)):
            if getattr(requested, field) not in (None, off):
                raise _unsupported(field)
        if not requested.skip_special_tokens:
            raise _unsupported(Field.SKIP_SPECIAL_TOKENS)
        if requested.temperature is not None and requested.temperature > HOTTEST:
            message = f"{Field.TEMPERATURE.quoted} may be at most {HOTTEST}: Foundry Local serves this model."
            raise InvalidRequest(message, field=Field.TEMPERATURE)

    def answer(self, text: str, params: ResolvedParams) -> _FoundryAnswer:
        return _FoundryAnswer(self._model, json.dumps(_wire_request(text, params)))

    def close(self) -> None:
        self._open.close()


def _register(manager: FoundryLocalManager, folder: Path) -> IModel:
    from foundry_local_sdk import CatalogType, ModelInfoBuilder

    with ModelInfoBuilder() as about:
        about.set_string_property("task", "chat-completion")
        return manager.get_catalog(CatalogType.LOCAL).register_model(folder, _MODEL_ID, about)


def _wire_request(text: str, params: ResolvedParams) -> dict[str, Any]:
    """Every parameter is named, since the runtime has defaults of its own (top_k 50). Seeds have 31 bits."""
    seed = params.requested.seed
    return {
        "model": _MODEL_ID,
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "max_tokens": params.max_tokens,
        "temperature": min(params.temperature, HOTTEST),
        "top_p": params.top_p,
        "metadata": {"top_k": str(params.top_k)},
    } | ({} if seed is None else {"seed": seed % _SEEDS})


class _FoundryAnswer:
    """One request in a session of its own. Implements `text_model.Answer`."""

    def __init__(self, model: IModel, wire_request: str) -> None:
        self._model = model
        self._wire_request = wire_request
        self._lock = threading.Lock()  # held while the running request may be cancelled, or ends
        self._running: Any = None
        self._cancelled = False

    def run(self, on_text: Callable[[str], None]) -> Answered:
        import foundry_local_sdk as sdk

        with sdk.ChatSession(self._model) as session, sdk.Request() as request:
            session.set_streaming(True)
            request.add_item(sdk.TextItem(self._wire_request, sdk.TextItemType.OPENAI_JSON))
            with self._cancellable(request), session.process_streaming_request(request) as stream:
                for item in stream:
                    if self._cancelled:  # before the SDK had begun, where cancelling does nothing
                        break
                    if isinstance(item, sdk.TextItem) and (text := _text_of(item.text)):
                        on_text(text)
                with stream.final_response as final:
                    usage = final.get_usage()
                    is_full = final.finish_reason is sdk.FinishReason.LENGTH
        return Answered(FinishReason.LENGTH if is_full else FinishReason.STOP, usage.prompt_tokens, usage.completion_tokens)

    @contextlib.contextmanager
    def _cancellable(self, request: Any) -> Any:
        with self._lock:
            self._running = request
        try:
            yield
        finally:
            with self._lock:
                self._running = None

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            if self._running is not None:
                self._running.cancel()


def _text_of(wire_chunk: str) -> str:
    """The first and the last chunk carry no text."""
    return json.loads(wire_chunk)["choices"][0]["delta"].get("content") or ""


def _unsupported(field: Field) -> InvalidRequest:
    return InvalidRequest(
        f"Foundry Local, which serves this model, has no {field.quoted}. Leave it out, or serve the model with another engine.",
        field=field,
        code="unsupported_parameter",
    )
