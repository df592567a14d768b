"""`make bench-adapters`: what adapters cost, on a real daemon. Prints figures; asserts nothing.

One, four and eight clients on the base alone, then each on another of eight adapters that are attached to it, in turns; and the
worker's resident memory after each load. The adapters are random, of rank 8 on all linear layers: what they say is nonsense, what
they cost is not. The model is pulled into a home of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from jobs.tasks.benchmark.load import Load, Target, run_load
from model_registry.artifacts import StagedVariant
from model_registry.pull import pull
from model_registry.records import Manifest
from model_registry.registry import open_registry
from runtime.engines.model_folder import read_model_folder
from runtime.engines.onnx.products import layer_products
from tests.benchmarks.daemon import Daemon, daemon
from tests.doubles.peft_folder import random_matrices, write_peft

CLIENTS = (1, 4, 8)
REQUESTS, TOKENS = 4, 96  # of each client


def publish(home: Path, model: str, count: int, rank: int) -> list[str]:
    """The model, and versions of random adapters on it, as tunings register them; the adapters' names."""
    import onnx

    names = [f"random-{number}" for number in range(count)]
    with open_registry(home) as registry, tempfile.TemporaryDirectory() as folder:
        base = pull(registry, model)
        decoder = read_model_folder(base.variants[0].folder).decoder
        products = list(
            layer_products(onnx.load(decoder.path, load_external_data=False).graph, decoder.kv_heads * decoder.head_size)
        )
        sizes = {module: (rows, product.columns) for product in products for module, rows in product.modules}
        for number, name in enumerate(names):
            matrices = random_matrices(sizes, layers=decoder.num_layers, rank=rank, seed=number, size=0.02)
            path = write_peft(Path(folder) / name, matrices, alpha=rank)
            manifest = Manifest("job:bench", "finetune", "llama", base.manifest.context_length, parent=base.label)
            registry.publish(name, manifest, [StagedVariant.adapter(path)])
    return names


def tokens_per_s(running: Daemon, models: Sequence[str], seed: int) -> float:
    """Of one client per model, all at once."""

    async def all_at_once() -> float:
        begun = time.perf_counter()
        load = Load(num_clients=1, num_requests=REQUESTS, max_tokens=TOKENS, seed=seed)
        extra = {"ignore_eos": True}
        reports = await asyncio.gather(*(run_load(Target(f"{running.url}/v1", model, extra=extra), load) for model in models))
        return sum(report.completion_tokens for report in reports) / (time.perf_counter() - begun)

    return asyncio.run(all_at_once())


def measure(running: Daemon, models: Sequence[str], seed: int) -> list[float]:
    found = [tokens_per_s(running, models[:clients], seed + clients) for clients in CLIENTS]
    resident = running.loaded()[0]["resident_bytes"] / 1e6
    print(
        "  ".join(f"{clients}: {each:.0f}" for clients, each in zip(CLIENTS, found, strict=True)), f" {resident:.0f} MB", flush=True
    )
    return [*found, resident]


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-adapters", description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model, count = options.model, max(CLIENTS)
    with tempfile.TemporaryDirectory() as home:
        os.environ["SLMOPS_HOME"] = home
        names = publish(Path(home), model, count, options.rank)
        plain: list[list[float]] = []
        mixed: list[list[float]] = []
        with daemon(model) as running:
            for number in range(options.rounds):
                running.post(model, "load")
                print("base, tokens/s by clients: ", end="")
                plain.append(measure(running, [model] * count, 100 * number))
                for name in names:
                    answer = running.admin.post(f"/admin/models/{model}/adapters", json={"name": name, "adapter": name})
                    answer.raise_for_status()
                print(f"{count} adapters: ", end="")
                mixed.append(measure(running, [f"{model}:{name}" for name in names], 100 * number))
                for name in names:
                    running.admin.delete(f"/admin/models/{model}/adapters/{name}").raise_for_status()
        best = [[max(each) for each in list(zip(*rounds, strict=True))[:-1]] for rounds in (plain, mixed)]
        ratios = "  ".join(f"{clients}: {b / a:.2f}" for clients, a, b in zip(CLIENTS, *best, strict=True))
        memory = mixed[-1][-1] / plain[0][-1]
        print(f"with adapters over without, by the best of {options.rounds}: {ratios}; memory {memory:.2f}")


if __name__ == "__main__":
    main()
