"""Tokens per second of our tuning and of a bare TRL script with the same settings, in turns, each in a process of its own.

`python -m tests.benchmarks.training [ROUNDS]`; needs the default model in the home that SLMOPS_HOME names.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m"
STEPS, BATCH, RANK = 12, 8, 16
WORDS = ("river", "stone", "market", "winter", "garden", "signal", "bridge", "lantern", "copper", "harbor", "meadow", "velvet")


def write_data(path: Path) -> None:
    chance = random.Random(1)
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Tell me about {chance.choice(WORDS)} number {number}."},
                {"role": "assistant", "content": " ".join(chance.choices(WORDS, k=chance.randint(20, 120)))},
            ]
        }
        for number in range(400)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))


def context_in(folder: Path) -> Any:
    from jobs.tasks.protocol import TaskContext
    from model_registry.registry import Registry
    from server.settings import Settings

    class Silent:
        stop = None

        def stage(self, name: str) -> None: ...
        def progress(self, step: int, total: int | None, metrics: Any, unit: str) -> None: ...
        def message(self, text: str, level: str = "info") -> None: ...
        def checkpoint(self, step: int, path: Path, metrics: Any) -> None: ...

    return TaskContext("job-bench", Registry(Settings().home), folder, Silent(), threads=os.cpu_count() or 1)


def ours(data: Path, folder: Path) -> Any:
    from jobs.tasks.checkpoints import materialise, served_variant
    from jobs.tasks.training.following import Follower
    from jobs.tasks.training.material import prepare
    from jobs.tasks.training.parameters import FinetuneParams
    from jobs.tasks.training.trainer import build_trainer

    context = context_in(folder)
    params = FinetuneParams(model=MODEL, data=str(data), batch_size=BATCH, rank=RANK, max_steps=STEPS, checkpoint_every=1000)
    training, _ = prepare(params, served_variant(context.registry.resolve(MODEL)).folder)
    return build_trainer(params, materialise(context, MODEL), training, None, context, Follower(context), None)


def bare(data: Path, folder: Path) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from jobs.tasks.checkpoints import materialise

    rows = [json.loads(line) for line in data.read_text().splitlines()]
    args = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=2e-4,
        bf16=True,
        use_cpu=True,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        gradient_checkpointing=False,
        disable_tqdm=True,
        model_init_kwargs={"dtype": "bfloat16"},
    )
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    checkpoint = str(materialise(context_in(folder), MODEL))
    return SFTTrainer(model=checkpoint, args=args, train_dataset=Dataset.from_list(rows), peft_config=lora)


def measure(who: str, data: Path) -> None:
    """In a process of its own: prints tokens per second, without padding."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = {"ours": ours, "bare": bare}[who](data, Path(folder))
        begun = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begun
        logged = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    print(json.dumps({"tokens_per_s": logged[-1] / seconds}))


def main(rounds: int) -> None:
    found: dict[str, list[float]] = {"ours": [], "bare": []}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.jsonl"
        write_data(data)
        for turn in range(rounds):
            for who in ("ours", "bare") if turn % 2 == 0 else ("bare", "ours"):
                command = [sys.executable, "-m", "tests.benchmarks.training", who, str(data)]
                printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found[who].append(json.loads(printed.splitlines()[-1])["tokens_per_s"])
                print(f"{who}: {found[who][-1]:.0f} tokens/s", flush=True)
    best = {who: max(values) for who, values in found.items()}
    print(f"ours {best['ours']:.0f}, bare TRL {best['bare']:.0f} tokens/s: {best['ours'] / best['bare']:.2f}")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(sys.argv[1], Path(sys.argv[2]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else 2)
