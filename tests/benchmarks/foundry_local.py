"""Foundry Local's SDK: chat sessions on our ONNX folder, registered in its local catalog. Install: pip install foundry-local-sdk.

It has no server to speak of in this form, so one thread with its own sessions stands for each client, in a child process that
may run another Python (the SDK pins its own onnxruntime). Run as a program, it is the child. A client keeps its session and
rewinds it after each answer, which is faster than a session per request.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.tasks.benchmark.event_stream import Answer
from jobs.tasks.benchmark.load import WARM_UP, Load, LoadReport, prompts, report
from tests.benchmarks.child_peer import child, obey
from tests.benchmarks.peer import Model, Running

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class FoundryLocal:
    """python: an interpreter that has foundry-local-sdk; None means ours."""

    python: Path | None = None
    name: str = "Foundry Local"

    def missing(self) -> str | None:
        if self.python is not None and shutil.which(str(self.python)):
            return None
        if self.python is None and importlib.util.find_spec("foundry_local_sdk") is not None:
            return None
        return "pip install foundry-local-sdk, or name a Python that has it with --foundry-python PATH"

    def start(self, model: Model, log: Path) -> AbstractContextManager[Running]:
        command = [str(self.python or sys.executable), "-m", __name__, str(model.folder)]
        return child(command, {**os.environ, "PYTHONPATH": str(ROOT)}, log)


class _Sessions:
    """Threads that each take the next prompt, open a session, and time what it streams. The SDK has no types: Any."""

    def __init__(self, sdk: Any, model: Any) -> None:
        self._sdk = sdk
        self._model = model

    def measure(self, load: Load) -> LoadReport:
        with self._session(load) as session:
            self._request(session, WARM_UP)
        remaining = iter(prompts(load))
        taking = threading.Lock()
        answers: list[Answer] = []
        errors: list[str] = []

        def client() -> None:
            with self._session(load) as session:
                while True:
                    with taking:
                        text = next(remaining, None)
                    if text is None:
                        return
                    try:
                        answers.append(self._request(session, text))
                    except self._sdk.exception.FoundryLocalException as error:
                        errors.append(str(error))

        threads = [threading.Thread(target=client) for _ in range(load.num_clients)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return report(load, answers, errors, time.perf_counter() - started)

    def _session(self, load: Load) -> Any:
        search = self._sdk.SearchOptions(temperature=0.0, max_output_tokens=load.max_tokens, do_sample=False)
        session = self._sdk.ChatSession(self._model)
        session.set_options(self._sdk.RequestOptions(search=search))
        session.set_streaming(True)
        return session

    def _request(self, session: Any, text: str) -> Answer:
        sdk = self._sdk
        sent = time.perf_counter()
        with sdk.Request().add_item(sdk.MessageItem.user(text)) as request:
            with session.process_streaming_request(request) as stream:
                instants = [time.perf_counter() for item in stream if isinstance(item, sdk.TextItem) and item.text]
                with stream.final_response as final:
                    usage = final.get_usage()
            session.undo_turns(1)
        instants = instants or [time.perf_counter()]
        return Answer.timed(sent, instants, completion=usage.completion_tokens, prompt=usage.prompt_tokens)


def main() -> None:
    sdk: Any = importlib.import_module("foundry_local_sdk")
    with tempfile.TemporaryDirectory() as folder:
        configuration = sdk.Configuration(
            app_name="slmops-bench",
            app_data_dir=f"{folder}/data",
            model_cache_dir=f"{folder}/models",
            logs_dir=f"{folder}/logs",
            disable_nonessential_telemetry=True,
        )
        sdk.FoundryLocalManager.initialize(configuration)
        catalog = sdk.FoundryLocalManager.instance.get_catalog(sdk.CatalogType.LOCAL)
        with sdk.ModelInfoBuilder() as about:
            about.set_string_property("task", "chat-completion")
            about.set_string_property("display_name", "slmops benchmark")
            model = catalog.register_model(sys.argv[1], "slmops-bench-generic-cpu:1", about)
        model.load()
        obey(_Sessions(sdk, model).measure)
        model.unload()


if __name__ == "__main__":
    main()
