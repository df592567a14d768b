"""Training in this process, on a tiny random model: losses that equal the plain ones, and runs that end alike after a pause."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from jobs.child import terminal_message
from jobs.messages import Failed, Start
from jobs.task import InvalidJob, Stopped, StopReason, TaskContext
from jobs.tasks.checkpoints import materialise
from jobs.tasks.finetune import olive_pass, trainer
from jobs.tasks.finetune.estimate import trainer_settings
from jobs.tasks.finetune.material import Material, best_fit, packed_row
from jobs.tasks.finetune.parameters import FinetuneParams
from jobs.tasks.finetune.rendering import IGNORED, PreferenceTokens, Tokens
from jobs.tasks.vendors import hugging_face as four_bits
from model_registry.database import Database
from model_registry.pull import pull
from model_registry.records import Precision
from model_registry.registry import Registry
from tests.doubles.tiny_gguf import Tiny, write_gguf

pytestmark = pytest.mark.filterwarnings("ignore::Warning")  # of the training libraries, which jobs pass on to their logs
CAPACITY = 24


class Recorder:
    """A reporter that requests a pause at a step."""

    def __init__(self, pause_at: int | None = None) -> None:
        self._pause_at = pause_at
        self.stop: StopReason | None = None
        self.steps: list[int] = []

    def stage(self, name: str) -> None: ...

    def message(self, text: str, level: str = "info") -> None: ...

    def checkpoint(self, step: int, path: Path, metrics: Mapping[str, float]) -> None: ...

    def progress(self, step: int, total: int | None, metrics: Mapping[str, float], unit: str) -> None:
        self.steps.append(step)
        if step == self._pause_at:
            self.stop = StopReason.PAUSE


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> TaskContext:
    folder = tmp_path_factory.mktemp("training")
    source = write_gguf(folder / "tiny.gguf", Tiny())
    registry = Registry(Database(folder / "home"))
    pull(registry, str(source), name="tiny", precision=Precision.FP32)
    return TaskContext("job-test", registry, folder, Recorder(), threads=1)


@pytest.fixture(scope="module")
def checkpoint(context: TaskContext) -> Path:
    return materialise(context, "tiny")


def examples() -> list[Tokens]:
    """Of several lengths; the first half of each is not learned."""
    lengths = (4, 9, 6, 12, 5, 7, 10, 8)
    rows = [[(3 * number + place) % 11 + 3 for place in range(length)] for number, length in enumerate(lengths)]
    return [Tokens(number + 1, row, [IGNORED] * (len(row) // 2) + row[len(row) // 2 :]) for number, row in enumerate(rows)]


def preferences() -> Material:
    rows = [each.input_ids for each in examples()]
    return Material(preferences=[PreferenceTokens(number, row[:2], row[2:], row[:1:-1]) for number, row in enumerate(rows)])


def material(*, packed: bool) -> Material:
    tokens = examples()
    groups = best_fit([len(each.input_ids) for each in tokens], CAPACITY, 0) if packed else []
    rows = [packed_row([tokens[index] for index in group]) for group in groups]
    return Material(tokens, num_tokens=61, longest=CAPACITY, packed=rows)


def params(**changes: Any) -> FinetuneParams:
    """In float32 by default: `auto` depends on the CPU."""
    small: dict[str, Any] = {"model": "tiny", "data": "-", "batch_size": 2, "rank": 4, "learning_rate": 1e-2, "precision": "fp32"}
    return FinetuneParams(**{**small, "max_length": CAPACITY, **changes})


# Tolerances of a loss of about 3: bfloat16 keeps 8 bits, and the two ways round at different places. Every CPU computes both.
PRECISIONS = {"fp32": {}, "bf16": {"atol": 0.02, "rtol": 0.02}}
each_precision = pytest.mark.parametrize("precision", PRECISIONS)


def built(requested: FinetuneParams, context: TaskContext, checkpoint: Path, data: Material) -> Any:
    from jobs.tasks.finetune.following import Follower

    return trainer.build_trainer(requested, checkpoint, data, None, context, Follower(context), None)


def adapter_of(trained: trainer.Trained, folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    trained.save_adapter(folder)
    return load_file(folder / "adapter_model.safetensors")


@pytest.mark.parametrize("has_head", [False, True], ids=["adapters", "full"])
def test_the_loss_and_its_gradients_are_those_of_all_logits(has_head: bool) -> None:
    import torch
    from torch.nn.functional import cross_entropy

    from jobs.tasks.finetune.learned_loss import learned

    torch.manual_seed(0)
    hidden = torch.randn(3, 7, 8, requires_grad=True)
    weight = torch.randn(50, 8, requires_grad=has_head)
    labels = torch.randint(0, 50, (3, 7))
    labels[:, :4] = IGNORED
    mine = learned(hidden, weight, labels, IGNORED)
    logits = (hidden @ weight.T)[:, :-1]
    plain = cross_entropy(logits.reshape(-1, 50), labels[:, 1:].reshape(-1), ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(mine.loss, plain)
    assert int(mine.num_labels) == 9
    assert int(mine.num_right) == int((logits.argmax(-1) == labels[:, 1:]).sum())
    wanted = (hidden, weight) if has_head else (hidden,)
    theirs = torch.autograd.grad(plain / 5, wanted)
    for ours, expected in zip(torch.autograd.grad(mine.loss / 5, wanted), theirs, strict=True):
        torch.testing.assert_close(ours, expected)
    assert float(learned(hidden, weight, torch.full_like(labels, IGNORED), IGNORED).loss) == 0.0


@each_precision
def test_the_trainers_loss_is_that_of_trl(context: TaskContext, checkpoint: Path, precision: str) -> None:
    import torch
    from trl.trainer.sft_trainer import SFTTrainer

    made = built(params(method="full", precision=precision), context, checkpoint, material(packed=False))
    batch = next(iter(made.get_train_dataloader()))
    inputs = {name: value for name, value in batch.items() if name != "num_tokens"}
    with torch.no_grad():
        mine, theirs = made.compute_loss(made.model, batch), SFTTrainer.compute_loss(made, made.model, inputs)
    torch.testing.assert_close(mine, theirs, check_dtype=False, **PRECISIONS[precision])


@pytest.mark.parametrize("method", ["full", "lora"])
@each_precision
def test_a_teachers_logits_are_learned_where_there_are_labels(
    context: TaskContext, checkpoint: Path, method: str, precision: str
) -> None:
    import torch
    from torch.nn.functional import cross_entropy, log_softmax

    from jobs.tasks.finetune.following import Follower

    teacher = trainer.Teacher(checkpoint, 0.3, 2.0)
    requested = params(method=method, precision=precision)
    made = trainer.build_trainer(requested, checkpoint, material(packed=False), None, context, Follower(context), teacher)
    with torch.no_grad():
        for weight in made.model.parameters():  # the student is another one than its teacher
            if weight.requires_grad:
                weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        batch = next(iter(made.get_train_dataloader()))
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        labels = batch["labels"][:, 1:]
        learned = labels != IGNORED
        mine, theirs = (causal(**inputs).logits[:, :-1][learned].float() for causal in (made.model, made._teacher))
        one, two = log_softmax(mine / 2, -1), log_softmax(theirs / 2, -1)
        expected = 0.7 * cross_entropy(mine, labels[learned]) + 0.3 * 4 * (two.exp() * (two - one)).sum() / learned.sum()
        assert not torch.equal(mine, theirs)
        loss = made.compute_loss(made.model, batch)
    torch.testing.assert_close(loss, expected, check_dtype=False, **PRECISIONS[precision])


def test_a_packed_example_is_computed_as_if_alone(context: TaskContext, checkpoint: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from jobs.tasks.finetune.supervised import Collator

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    assert model.config._attn_implementation == "sdpa"
    tokens = examples()
    groups = best_fit([len(each.input_ids) for each in tokens], CAPACITY, 0)
    rows = [packed_row([tokens[index] for index in group]) for group in groups]
    assert len({len(row.input_ids) for row in rows}) > 1, "else no row is padded"
    batch = Collator(0)([{"input_ids": r.input_ids, "labels": r.labels, "position_ids": r.position_ids} for r in rows])
    with torch.no_grad():
        together = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
        for row, group in enumerate(groups):
            begin = 0
            for index in group:
                ids = torch.tensor([tokens[index].input_ids])
                end = begin + ids.shape[1]
                torch.testing.assert_close(together[row, begin:end], model(ids).logits[0], atol=1e-5, rtol=1e-4)
                begin = end


def test_a_base_in_four_bits_learns_in_float32(context: TaskContext, checkpoint: Path) -> None:
    import bitsandbytes
    import torch

    made = built(params(method="qlora"), context, checkpoint, material(packed=False))
    held = [module for module in made.model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(held) == 7 * made.model.config.num_hidden_layers
    assert {module.weight.dtype for module in held} == {torch.uint8}
    assert all(module.weight.quant_state.nested and module.weight.quant_state.quant_type == "nf4" for module in held)
    assert {weight.dtype for weight in made.model.parameters() if weight.requires_grad} == {torch.float32}


# Of each trainer one run, and of the supervised one also a killed process (test_finetune.py); thoroughly, of each method, too.
RUNS = [
    pytest.param({"packing": True, "gradient_checkpointing": True}, id="packing"),
    pytest.param({"method": "qlora", "objective": "dpo"}, id="qlora-dpo"),
    pytest.param({"backend": "olive", "dropout": 0.1, "gradient_accumulation": 2}, id="olive"),
    pytest.param({"method": "qlora", "dropout": 0.1}, id="qlora", marks=pytest.mark.thorough),
    pytest.param({"backend": "olive", "method": "qlora"}, id="olive-qlora", marks=pytest.mark.thorough),
    pytest.param({"precision": "bf16", "dropout": 0.1}, id="bf16", marks=pytest.mark.thorough),
]


@pytest.mark.parametrize("changes", RUNS)
def test_a_paused_run_ends_with_the_same_adapter(
    context: TaskContext, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    import numpy as np

    if changes.get("backend") == "olive":
        pytest.importorskip("olive", reason="needs `pip install 'slmops[olive]'`")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    requested = params(**changes, max_steps=6, checkpoint_every=2)
    data = preferences() if requested.objective == "dpo" else material(packed=requested.packing)

    def run(folder: Path, pause_at: int | None) -> trainer.Trained:
        begin = olive_pass.train_with_olive if requested.backend == "olive" else trainer.train
        folder.mkdir(exist_ok=True)
        return begin(requested, checkpoint, data, None, replace(context, folder=folder, reporter=Recorder(pause_at)))

    whole = run(tmp_path / "whole", None)
    assert [entry["step"] for entry in whole.history if "loss" in entry] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(Stopped):
        run(tmp_path / "paused", 3)
    resumed = run(tmp_path / "paused", None)
    one, two = adapter_of(whole, tmp_path / "one"), adapter_of(resumed, tmp_path / "two")
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert all(values.any() for values in one.values()), "B begins as zeros: what is zero has learned nothing"
    assert not (tmp_path / "cache" / "Microsoft").exists(), "Olive's telemetry would keep a device's id there"


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"objective": "dpo", "packing": True}, "packing is for supervised tuning"),
        ({"packing": True, "max_length": None}, "packing needs max_length"),
        ({"targets": ["q_proj", "lm_head"]}, "targets cannot have lm_head"),
        ({"backend": "olive", "method": "full", "packing": True}, "backend olive has no method full and no packing"),
        ({"backend": "olive", "objective": "dpo"}, "no objective dpo"),
        ({"backend": "olive", "loss": "mine"}, "no loss"),
        ({"backend": "olive", "early_stopping": 2, "validation": "-"}, "no early_stopping"),
        ({"backend": "olive", "method": "qlora", "targets": ["q_proj"]}, "no targets with qlora"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(changes: dict[str, Any], refusal: str) -> None:
    with pytest.raises(ValidationError, match=refusal):
        params(**changes)


def test_what_is_not_installed_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(olive_pass, "find_spec", lambda name: None)
    monkeypatch.setattr(four_bits, "find_spec", lambda name: None)
    with pytest.raises(InvalidJob, match=r"pip install 'slmops\[olive\]'"):
        olive_pass.check_olive()
    with pytest.raises(InvalidJob, match=r"pip install 'slmops\[tune\]'"):
        four_bits.check_four_bits()


def test_memory_that_runs_out_is_reported_with_what_to_lower() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60)
    last = terminal_message(caught.value, Start(job="job-test", kind="finetune", params={}, home="-", folder="-"))
    assert isinstance(last, Failed)
    assert last.code == "out_of_memory"
    assert "Lower batch_size or max_length" in last.message


def test_a_loss_of_ones_own_is_found_by_its_name(
    context: TaskContext, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Entry:
        name = "halved"

        @staticmethod
        def load() -> Any:
            return halved

    def halved(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
        from torch.nn.functional import cross_entropy

        logits = outputs.logits[:, :-1].flatten(0, 1)
        return cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum") / num_items_in_batch / 2

    monkeypatch.setattr(trainer, "entry_points", lambda group: [Entry] if group == trainer.LOSSES else [])
    first = {}
    for name in (None, "halved"):
        folder = tmp_path / str(name)
        folder.mkdir()
        requested = params(loss=name, max_steps=1)
        here = replace(context, folder=folder, reporter=Recorder())
        trained = trainer.train(requested, checkpoint, material(packed=False), None, here)
        first[name] = trained.history[0]
    assert first["halved"]["loss"] == pytest.approx(first[None]["loss"] / 2, rel=1e-3)
    assert first["halved"]["mean_token_accuracy"] == first[None]["mean_token_accuracy"]
    with pytest.raises(InvalidJob, match="there are halved"):
        trainer.loss_named("other")


def test_accumulated_batches_teach_what_one_batch_does(context: TaskContext, checkpoint: Path, tmp_path: Path) -> None:
    import numpy as np

    found = []
    for number, changes in enumerate(({"batch_size": 8}, {"batch_size": 2, "gradient_accumulation": 4})):
        folder = tmp_path / str(number)
        folder.mkdir()
        requested = params(**changes, max_steps=1, learning_rate=1e-3, warmup_ratio=0.0, schedule="constant")
        here = replace(context, folder=folder, reporter=Recorder())
        trained = trainer.train(requested, checkpoint, material(packed=False), None, here)
        found.append((trained.history[0]["loss"], trained.history[0]["grad_norm"]))
    assert np.allclose(found[0], found[1], rtol=1e-3)


@pytest.mark.parametrize(
    ("requested", "steps", "warmup"),
    [
        ({"epochs": 1}, 4, 0),
        ({"epochs": 1, "max_steps": 100}, 4, 0),
        ({"epochs": 1, "max_steps": 1, "warmup_ratio": 0.9}, 1, 0),
        ({"epochs": 1.5, "batch_size": 8}, 2, 0),
        ({"epochs": 10}, 40, 2),
        ({"epochs": 10, "max_steps": 20, "warmup_ratio": 0.25}, 20, 5),
    ],
)
def test_steps_end_with_the_epochs_and_a_warm_up_leaves_the_first_of_few_alone(
    requested: dict[str, Any], steps: int, warmup: int
) -> None:
    reported = trainer_settings(params(**requested), material(packed=False), Path("checkpoints"), has_validation=False)
    assert (reported["max_steps"], reported["warmup_steps"]) == (steps, warmup)


def test_a_single_step_teaches(context: TaskContext, checkpoint: Path, tmp_path: Path) -> None:
    alone = replace(context, folder=tmp_path, reporter=Recorder())
    trained = trainer.train(params(epochs=1, batch_size=8), checkpoint, material(packed=False), None, alone)
    assert any(values.any() for name, values in adapter_of(trained, tmp_path / "adapter").items() if "lora_B" in name)
    assert set(alone.reporter.steps) == {1}


def test_the_rate_follows_its_schedule(context: TaskContext, checkpoint: Path) -> None:
    made = {}
    for schedule in ("linear", "cosine", "constant", "constant_with_warmup"):
        requested = params(schedule=schedule, learning_rate=1.0, warmup_ratio=0.0 if schedule == "constant" else 0.2)
        one = built(requested, context, checkpoint, material(packed=False))
        one.create_optimizer_and_scheduler(10)
        rates = []
        for _ in range(10):
            rates.append(one.lr_scheduler.get_last_lr()[0])
            one.optimizer.step()
            one.lr_scheduler.step()
        made[schedule] = rates
    assert made["linear"] == pytest.approx([0, 0.5, *(1 - step / 8 for step in range(8))])
    assert made["cosine"] == pytest.approx([0, 0.5, *((1 + math.cos(math.pi * step / 8)) / 2 for step in range(8))])
    assert made["constant"] == [1.0] * 10
    assert made["constant_with_warmup"] == pytest.approx([0, 0.5, *[1.0] * 8])


def test_bf16_is_chosen_where_the_cpu_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for has_bf16, has_amx in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda answer=has_bf16: answer)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda answer=has_amx: answer)
        assert trainer.uses_bf16(params(precision="auto")) is (has_bf16 or has_amx)
        assert not trainer.uses_bf16(params(precision="fp32"))
        assert trainer.uses_bf16(params(precision="bf16"))
