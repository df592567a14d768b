"""Tokens per second and memory of our tuning and of a bare TRL script with the same settings, in turns, a process each.

`python -m tests.benchmarks.training [ROUNDS [WHO,...]]`; needs the default model in the home that SLMOPS_HOME names. Tokens per
second of processor time are reported, too: they stay valid on a busy machine.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from model_registry.database import Database

MODEL = "smollm2-135m"
STEPS, BATCH, RANK = int(os.environ.get("STEPS", "12")), 8, 16
OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "packed": {"packing": True, "max_length": 512, "batch_size": 2},  # as many tokens a batch
    "qlora": {"method": "qlora"},
    "preferring": {"objective": "dpo", "batch_size": BATCH // 2},
}
WORDS = ("river", "stone", "market", "winter", "garden", "signal", "bridge", "lantern", "copper", "harbor", "meadow", "velvet")


def write_data(path: Path, *, preferences: bool = False) -> None:
    """Questions with half a page to read before each, as instructions and retrieved texts are."""
    chance = random.Random(1)
    rows = []
    for number in range(400):
        text = " ".join(chance.choices(WORDS, k=chance.randint(10, 120)))
        prompt = [{"role": "user", "content": f"{text}. Tell me about {chance.choice(WORDS)} number {number}."}]
        answers = [" ".join(chance.choices(WORDS, k=chance.randint(10, 60))) for _ in range(2)]
        if preferences:
            rows.append({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]})
        else:
            rows.append({"messages": [*prompt, {"role": "assistant", "content": answers[0]}]})
    path.write_text("\n".join(map(json.dumps, rows)))


def context_in(folder: Path) -> Any:
    from jobs.task import TaskContext
    from model_registry.registry import Registry
    from server.settings.daemon import Settings

    class Silent:
        stop = None

        def stage(self, name: str) -> None: ...
        def progress(self, step: int, total: int | None, metrics: Any, unit: str) -> None: ...
        def message(self, text: str, level: str = "info") -> None: ...
        def checkpoint(self, step: int, path: Path, metrics: Any) -> None: ...

    return TaskContext("job-bench", Registry(Database(Settings().home)), folder, Silent(), threads=os.cpu_count() or 1)


def ours(who: str, data: Path, folder: Path) -> Any:
    from jobs.tasks.checkpoints import materialise, served_variant
    from jobs.tasks.finetune.following import Follower
    from jobs.tasks.finetune.material import prepare
    from jobs.tasks.finetune.parameters import FinetuneParams
    from jobs.tasks.finetune.trainer import build_trainer

    context = context_in(folder)
    fixed = {"model": MODEL, "data": str(data), "batch_size": BATCH, "rank": RANK, "max_steps": STEPS, "checkpoint_every": 1000}
    params = FinetuneParams.model_validate({**fixed, **OURS[who]})
    training, _ = prepare(params, served_variant(context.registry.resolve(MODEL)).folder)
    return build_trainer(params, materialise(context, MODEL), training, None, context, Follower(context), None)


def bare(data: Path, folder: Path) -> Any:
    from datasets import Dataset
    from peft import LoraConfig
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    from jobs.tasks.checkpoints import materialise
    from jobs.tasks.finetune.parameters import FinetuneParams
    from jobs.tasks.finetune.trainer import uses_bf16

    messages = [json.loads(line)["messages"] for line in data.read_text().splitlines()]
    rows = [{"prompt": each[:-1], "completion": each[-1:]} for each in messages]  # so that only answers are learned
    bf16 = uses_bf16(FinetuneParams(model=MODEL, data=str(data)))
    args = SFTConfig(
        output_dir=str(folder),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=2e-4,
        bf16=bf16,
        use_cpu=True,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        gradient_checkpointing=False,
        disable_tqdm=True,
        model_init_kwargs={"dtype": "bfloat16" if bf16 else "float32"},
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
        trainer = bare(data, Path(folder)) if who == "bare" else ours(who, data, Path(folder))
        begun, begun_cpu = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
        tokens = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry][-1]
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"tokens_per_s": tokens / seconds, "tokens_per_cpu_s": tokens / cpu_seconds, "peak_mb": peak_mb}))


def main(rounds: int, names: list[str]) -> None:
    found: dict[str, list[dict[str, float]]] = {who: [] for who in names}
    with tempfile.TemporaryDirectory() as folder:
        data, preferences = Path(folder) / "data.jsonl", Path(folder) / "preferences.jsonl"
        write_data(data)
        write_data(preferences, preferences=True)
        for turn in range(rounds):
            for who in names if turn % 2 == 0 else reversed(names):
                command = [sys.executable, "-m", "tests.benchmarks.training", "--measure", who]
                command.append(str(preferences if who == "preferring" else data))
                printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                found[who].append(json.loads(printed.splitlines()[-1]))
                print(who, {name: round(value) for name, value in found[who][-1].items()}, flush=True)
    for who, values in found.items():
        best = {name: max(each[name] for each in values) for name in values[0]}
        print(f"{who:>10}: " + ", ".join(f"{value:.0f} {name}" for name, value in best.items()))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        main(int((sys.argv[1:2] or ["2"])[0]), (sys.argv[2:3] or ["bare,ours,packed,qlora,preferring"])[0].split(","))
