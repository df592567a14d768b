"""`make bench-pool`: what the pool of models costs and withstands, on a real daemon. Prints figures; asserts nothing.

loads      seconds to load and to unload, and resident memory of the process tree over twenty rounds
mixed      two models under load at once, against each alone
engines    the engines genai and foundry against ours, at 1, 4 and 8 clients
kills      fifty workers killed at random moments under sixteen clients: hung, wrong and failed requests, and recovery
replicas   two workers of one model against one, at 16 clients, and four conversations with long prefixes of their own
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from jobs.tasks.benchmark.load import Load, LoadReport
from tests.benchmarks.daemon import Daemon, daemon

ROUNDS = 20
KILLS = 50
CLIENTS = 16
HUNG_S = 60.0
CORES_BACK_S = 6.0  # until an idle model has given its cores to the others


def loads(model: str) -> None:
    with daemon(model) as d:
        taken: dict[str, list[float]] = {"load": [], "unload": []}
        memory = []
        for number in range(ROUNDS + 1):
            for verb in ("unload", "load"):
                began = time.perf_counter()
                d.post(model, verb)
                taken[verb].append(time.perf_counter() - began)
            d.measure(Load(num_clients=4, num_requests=8, max_tokens=32, seed=number), model)
            memory.append(d.resident_bytes() / 2**20)
        d.post(model, "unload")
        for verb, seconds in taken.items():
            print(f"{verb}: median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s of {len(seconds)}")
        print("process tree after each round, loaded, MB: " + " ".join(f"{size:.0f}" for size in memory))
        print(f"after the last unload: {d.resident_bytes() / 2**20:.0f} MB")


def mixed(model: str, other: str, *, other_is_chat: bool) -> None:
    load = Load(num_clients=4, num_requests=24, max_tokens=64)
    with daemon(model) as d:
        for name in (model, other):
            d.post(name, "load")
        alone = {}
        for name, is_chat in ((model, True), (other, other_is_chat)):
            time.sleep(CORES_BACK_S)
            alone[name] = d.measure(load, name, is_chat=is_chat)
        time.sleep(CORES_BACK_S)
        with ThreadPoolExecutor(2) as both:
            first = both.submit(d.measure, load, model)
            second = both.submit(d.measure, load, other, is_chat=other_is_chat)
            together = {model: first.result(), other: second.result()}
        for name in (model, other):
            ratio = together[name].tokens_per_s / alone[name].tokens_per_s
            _line(f"{name} alone", alone[name])
            _line(f"{name} beside the other ({ratio:.2f} of alone)", together[name])


def engines(model: str) -> None:
    for engine in ("onnx", "genai", "foundry", "onnx", "genai", "foundry"):
        with daemon(model, "--engine", engine) as d:
            for clients in (1, 4, 8):
                _line(f"{engine}, {clients} clients", d.measure(Load(clients, 6 * clients, max_tokens=64, seed=clients), model))
            print(f"{engine}: {d.resident_bytes() / 2**20:.0f} MB after the load")


def replicas(model: str) -> None:
    for count in (1, 2, 1, 2):
        with daemon(model, "--replicas", str(count)) as d:
            _line(f"{count} replicas, 16 clients", d.measure(Load(16, 48, max_tokens=64), model))
            _line(f"{count} replicas, long prefix", d.measure(Load(4, 16, max_tokens=32, shared_prefix_words=400), model))


def kills(model: str) -> None:
    """Every answer is greedy and compared with the one that the same prompt got in peace."""
    with daemon(model) as d:
        asyncio.run(_kill_and_compare(d, model))


async def _kill_and_compare(d: Daemon, model: str) -> None:
    prompts = [f"Count from {n} to {n + 12}." for n in range(32)]
    counts = {"right": 0, "wrong": 0, "hung": 0, "failed": 0}
    failures: dict[str, int] = {}
    recoveries: list[float] = []
    answered = asyncio.Event()  # rightly or wrongly, since it was cleared
    done = asyncio.Event()
    async with httpx.AsyncClient(base_url=d.url, timeout=HUNG_S, trust_env=False) as http:

        async def send(prompt: str) -> httpx.Response:
            message = [{"role": "user", "content": prompt}]
            body = {"model": model, "messages": message, "temperature": 0, "max_tokens": 48}
            return await http.post("/v1/chat/completions", json=body)

        truth = {prompt: (await send(prompt)).json()["choices"][0]["message"]["content"] for prompt in prompts}

        async def client(chance: random.Random) -> None:
            while not done.is_set():
                prompt = chance.choice(prompts)
                try:
                    answer = await send(prompt)
                except httpx.TimeoutException:
                    counts["hung"] += 1
                    continue
                if answer.status_code == httpx.codes.OK:
                    answered.set()
                    content = answer.json()["choices"][0]["message"]["content"]
                    counts["right" if content == truth[prompt] else "wrong"] += 1
                else:
                    counts["failed"] += 1
                    code = f"{answer.status_code} {answer.json()['error']['code']}"
                    failures[code] = failures.get(code, 0) + 1
                    await asyncio.sleep(0.05)

        async def killer() -> None:
            chance = random.Random(1)
            for _ in range(KILLS):
                await asyncio.sleep(chance.uniform(0.2, 2.5))
                pids = [row["pid"] for row in d.loaded() if row["pid"]]
                while not pids:
                    await asyncio.sleep(0.05)
                    pids = [row["pid"] for row in d.loaded() if row["pid"]]
                os.kill(chance.choice(pids), signal.SIGKILL)
                killed_at = time.monotonic()
                await asyncio.sleep(0.1)  # what was written before the kill has been read
                answered.clear()
                await answered.wait()
                recoveries.append(time.monotonic() - killed_at)
            done.set()

        began = time.monotonic()
        await asyncio.gather(killer(), *(client(random.Random(n)) for n in range(CLIENTS)))
    print(f"{KILLS} kills in {time.monotonic() - began:.0f} s under {CLIENTS} clients: {counts}, failures by code: {failures}")
    best = sorted(recoveries)
    print(f"kill to the next good answer: median {best[len(best) // 2]:.2f} s, worst {best[-1]:.2f} s")


def _line(what: str, report: LoadReport) -> None:
    ttft = f"{1000 * report.ttft_p50_s:.0f} ms" if report.ttft_p50_s is not None else "-"
    error = f"; {report.num_errors} errors, first: {report.first_error}" if report.num_errors else ""
    print(f"{what}: {report.tokens_per_s:.0f} tokens/s, first token p50 {ttft}{error}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench-pool", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["loads", "mixed", "engines", "kills", "replicas"])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--other", default="gemma3-270m", help="the second model; a base model, unless --other-chats")
    parser.add_argument("--other-chats", action="store_true")
    options = parser.parse_args()
    for part in options.parts:
        print(f"== {part}", flush=True)
        if part == "mixed":
            mixed(options.model, options.other, other_is_chat=options.other_chats)
        else:
            {"loads": loads, "engines": engines, "kills": kills, "replicas": replicas}[part](options.model)


if __name__ == "__main__":
    main()
