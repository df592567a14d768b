"""Checkpoints and GGUF files of families that our importers refuse become versions that our engine runs; pickles never run."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pickle
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.job import Job, JobStatus
from jobs.task import InvalidJob, JobFailure, JobKind, StopReason, TaskContext
from jobs.tasks.checkpoints import served_variant
from jobs.tasks.convert.task import TASK, ConvertParams
from jobs.tasks.vendors.olive import import_olive
from model_registry.errors import CorruptModel, UnsupportedModel
from model_registry.records import GraphKind, ModelVersion
from model_registry.registry import open_registry
from tests.doubles.permissive import EVERYWHERE
from tests.doubles.registry_http import LocalServer, add_repository, local_server
from tests.doubles.tiny_checkpoint import answer, served_logits, source_logits, task_context, write_checkpoint
from tests.doubles.tiny_gguf import Tiny, write_gguf
from tests.jobs.services import job_service

pytestmark = pytest.mark.filterwarnings("ignore")  # of PyTorch, transformers and the builder, about each other
IDS = [5, 9, 100, 33, 7, 8]
NORMS = {f"blk.{layer}.post_{name}_norm.weight": np.ones(64, np.float32) for layer in range(2) for name in ("attention", "ffw")}
GEMMA2 = Tiny("gemma2", tokenizer="llama", tied=True, metadata={"gemma2.vocab_size": 288}, tensors=NORMS)


@pytest.fixture(scope="module")
def granite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("granite"), "granite")


def converted(context: TaskContext, source: Path | str, **params: Any) -> ModelVersion:
    requested = ConvertParams(source=str(source), **{"output": "made"} | params)
    TASK.plan(requested, context)
    outcome = TASK.run(requested, context)
    assert outcome.version is not None
    assert list((context.registry.home / "staging").iterdir()) == []
    return context.registry.resolve(outcome.version)


def test_what_our_importers_refuse_goes_to_the_builder(context: TaskContext, granite: Path) -> None:
    version = converted(context, granite, precision="fp32")
    folder = version.variants[0].folder
    np.testing.assert_allclose(served_logits(folder, IDS), source_logits(granite, IDS), atol=1e-3)
    assert answer(folder, context)
    manifest = version.manifest
    assert (manifest.importer, manifest.architecture, manifest.parameters["graph"]) == ("genai-builder", "granite", "gqa")
    assert manifest.metrics["perplexity"] == pytest.approx(manifest.metrics["perplexity_source"], rel=1e-3)
    assert {"torch", "transformers", "onnxruntime-genai", "onnx-ir"} <= manifest.library_versions.keys()
    assert manifest.source == granite.as_uri()


def test_auto_takes_our_importer_where_it_can(context: TaskContext, llama: Path) -> None:
    assert converted(context, llama, precision="fp32").manifest.importer == "checkpoint"


def test_the_builder_is_called_by_name_with_its_options(context: TaskContext, llama: Path) -> None:
    requested = {"backend": "genai-builder", "precision": "int4", "block_size": 32, "algorithm": "k_quant", "int8_head": True}
    version = converted(context, llama, **requested)
    assert version.manifest.parameters["requested"] == {name: value for name, value in requested.items() if name != "precision"}
    assert version.manifest.parameters["built_as"] == "int4"
    near, truth = served_logits(version.variants[0].folder, IDS), source_logits(llama, IDS)
    assert np.corrcoef(near, truth)[0, 1] > 0.95
    assert version.variants[0].precision == "mixed"


@pytest.mark.parametrize(
    ("provider", "precision"), [("cuda", "int4"), ("directml", "fp16"), ("trt-rtx", "fp16"), ("webgpu", "int4")]
)
def test_builds_for_other_providers_are_placed_there(context: TaskContext, llama: Path, provider: str, precision: str) -> None:
    version = converted(context, llama, execution_provider=provider, precision=precision)
    assert [(variant.provider_family, variant.precision) for variant in version.variants] == [(provider, precision)]
    assert version.manifest.metrics == {}


def test_several_builds_become_one_version(context: TaskContext, llama: Path) -> None:
    builds = ["cuda-fp16", "cpu-int8"]
    version = converted(context, llama, builds=builds)
    assert [(each.name, each.graph) for each in version.builds] == [(name, GraphKind.GQA) for name in builds]
    parameters = version.manifest.parameters
    assert parameters["requested"] == {"builds": builds}
    assert {name: each["importer"] for name, each in parameters["builds"].items()} == {
        "cuda-fp16": "genai-builder",
        "cpu-int8": "checkpoint",
    }
    (untried,) = version.manifest.warnings
    assert "built for cuda" in untried
    assert context.registry.resolve("made").label == version.label
    assert answer(served_variant(version).folder, context), "jobs compute with the build for the CPU"
    assert converted(context, llama, builds=builds).label == version.label


def test_a_plan_names_each_build(context: TaskContext, llama: Path) -> None:
    plan = TASK.plan(ConvertParams(source=str(llama), builds=["cpu-int8", "cuda-fp16"]), context)
    assert [sentence for sentence in plan.summary if sentence.startswith("Imports")] == [
        "Imports it with int8, by slmops' importer, or the model builder where that cannot.",
        "Imports it with fp16, by onnxruntime-genai's model builder, for cuda.",
    ]


def test_the_builder_builds_also_where_olive_was_imported(context: TaskContext, llama: Path) -> None:
    import_olive(context.folder / "scratch")
    version = converted(context, llama, backend="genai-builder", precision="fp32")
    assert version.manifest.importer == "genai-builder"


def test_a_gguf_file_that_transformers_reads(context: TaskContext, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "tiny.gguf", dataclasses.replace(GEMMA2, context=128))
    version = converted(context, source, precision="fp32")
    assert (version.manifest.importer, version.manifest.architecture) == ("genai-builder", "gemma2")
    assert version.manifest.source_sha256 is not None
    assert answer(version.variants[0].folder, context)
    again = converted(context, source, precision="fp32")
    assert again.label == version.label


def test_an_architecture_that_nobody_builds_is_reported_with_each_reason(context: TaskContext, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "stablelm", "stablelm")
    with pytest.raises(UnsupportedModel, match=r"'stablelm' are not imported.*builder does not build"):
        converted(context, source)
    assert context.registry.models() == ()


def test_what_fails_inside_the_builder_is_reported(context: TaskContext, tmp_path: Path) -> None:
    source = write_checkpoint(tmp_path / "phi3", "phi3", original_max_position_embeddings=64)  # LongRoPE without factors
    with pytest.raises(JobFailure, match="The model builder failed with KeyError") as caught:
        converted(context, source)
    assert caught.value.code == "builder_failed"


def test_a_stop_ends_the_build_and_leaves_nothing(context: TaskContext, llama: Path) -> None:
    heard: Any = context.reporter
    stage = heard.stage

    def stop_at(name: str) -> None:
        stage(name)
        heard.stop = StopReason.CANCEL if name == "building the graph" else None

    heard.stage = stop_at
    with pytest.raises(Exception, match="cancel"):
        converted(context, llama, backend="genai-builder")
    assert context.registry.models() == ()
    assert list((context.registry.home / "staging").iterdir()) == []


def test_cancelled_in_its_own_process_it_is_not_waited_for(tmp_path: Path, llama: Path) -> None:
    async def cancelled() -> tuple[Job, float]:
        service = job_service(tmp_path / "home", permissions=EVERYWHERE)
        await service.start()
        try:
            job = await service.create(JobKind.CONVERT, {"source": str(llama), "output": "made", "backend": "genai-builder"})
            began = float("inf")
            async for event in service.events(job.id, follow=True):
                if event is not None and event.message == "loading the model builder":
                    began = time.monotonic()
                    await service.cancel(job.id)
            return await service.job(job.id), time.monotonic() - began
        finally:
            await service.close()

    job, seconds = asyncio.run(cancelled())
    assert job.status is JobStatus.CANCELLED
    assert seconds < 10  # what it was doing takes longer; two seconds where nothing else runs
    with open_registry(tmp_path / "home") as registry:
        assert registry.models() == ()


@pytest.mark.parametrize(
    ("params", "expected_text"),
    [
        ({"backend": "slmops", "block_size": 32}, "block_size is for the backends"),
        ({"backend": "genai-builder", "precision": "fp16"}, "int8, int4, fp32 for cpu, not fp16"),
        ({"block_size": 48}, "16, 32, 64, 128 or 256"),
        ({"backend": "genai-builder", "precision": "fp32", "algorithm": "rtn"}, "nothing is rounded in fp32"),
        ({"execution_provider": "cuda", "precision": "fp16", "int8_head": True}, "int8_head is for int4"),
        ({"cuda_graph": True}, "for the execution provider cuda"),
        ({"execution_provider": "npu"}, "Input should be"),
        ({"builds": ["cpu-int8"], "precision": "int8"}, "precision is what each of the builds says"),
        ({"builds": ["cpu-int8"], "execution_provider": "cuda"}, "execution_provider is what each"),
        ({"builds": ["cpu-int8", "npu-int8"]}, "'npu-int8' names no build"),
        ({"builds": ["cpu"]}, "'cpu' names no build"),
        ({"builds": ["cpu-int8", "cpu-int8"]}, "cpu-int8 is named twice"),
        ({"builds": ["cpu-int8", "directml-int8"]}, "fp16, int4 for directml, not int8"),
        ({"builds": ["cpu-int8", "cuda-fp16"], "backend": "slmops"}, "execution_provider is for the backends"),
    ],
)
def test_what_does_not_go_together(params: dict[str, Any], expected_text: str) -> None:
    with pytest.raises(ValueError, match=expected_text):
        ConvertParams(source="/x", **params)


def test_nothing_is_fetched_offline(tmp_path: Path) -> None:
    with task_context(tmp_path, offline=True) as context, pytest.raises(InvalidJob, match="offline"):
        TASK.plan(ConvertParams(source="hf://a/b"), context)


@pytest.mark.parametrize("source", ["hf://../../etc", "hf://../etc", "hf://a/..", "hf://./b", "hf://a/b@..", "hf://a/b@x%2F..%2Fy"])
def test_no_reference_leads_out_of_a_hub(tmp_path: Path, source: str) -> None:
    with task_context(tmp_path) as context, pytest.raises(InvalidJob) as caught:
        TASK.plan(ConvertParams(source=source, output="made"), context)
    assert caught.value.param == "source"


def test_the_builder_trusts_no_folder_s_code() -> None:
    order = ConvertParams(source="/x", backend="genai-builder").build_order()
    assert order is not None
    assert order.extra["hf_remote"] == "false"


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def pickled(source: Path, folder: Path, *, num_files: int = 1) -> Path:
    """The checkpoint with pickles in place of safetensors."""
    import torch
    from safetensors.torch import load_file

    shutil.copytree(source, folder)
    (folder / "model.safetensors").unlink()
    tensors = load_file(source / "model.safetensors")
    for number in range(num_files):
        name = "pytorch_model.bin" if num_files == 1 else f"pytorch_model-{number + 1:05}-of-{num_files:05}.bin"
        part = dict(list(tensors.items())[number::num_files])
        torch.save(part, folder / name)
    return folder


@pytest.mark.parametrize(("backend", "num_files"), [("slmops", 1), ("genai-builder", 2)])
def test_pickles_are_read_as_tensors_when_requested(
    context: TaskContext, llama: Path, tmp_path: Path, backend: str, num_files: int
) -> None:
    source = pickled(llama, tmp_path / "pickled", num_files=num_files)
    with pytest.raises(UnsupportedModel, match=r"pickles.*can run code.*`allow_pickle`: true"):
        converted(context, source, backend=backend)
    version = converted(context, source, backend=backend, precision="fp32", allow_pickle=True)
    np.testing.assert_allclose(served_logits(version.variants[0].folder, IDS), source_logits(llama, IDS), atol=1e-3)


@pytest.mark.parametrize("backend", ["slmops", "genai-builder"])
@pytest.mark.parametrize("allow_pickle", [False, True])
def test_a_pickle_that_would_run_code_does_not(
    context: TaskContext, llama: Path, tmp_path: Path, backend: str, allow_pickle: bool
) -> None:
    source = pickled(llama, tmp_path / "pickled")
    (source / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Evil(tmp_path / "mark")}))
    with pytest.raises((UnsupportedModel, CorruptModel)):
        converted(context, source, backend=backend, allow_pickle=allow_pickle)
    assert not (tmp_path / "mark").exists()
    pickle.loads((source / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "mark").exists(), "else the test would prove nothing"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServer]:
    for name in ("HF_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # an earlier conversion in this process went offline
    with local_server() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def test_a_checkpoint_of_the_hub(context: TaskContext, hub: LocalServer, llama: Path) -> None:
    files = {path.name: path.read_bytes() for path in llama.iterdir()}
    add_repository(hub, "org/tiny", files | {"modeling_evil.py": b"x", "onnx/model.onnx": b"no graph", "README.md": b"x"})
    version = converted(context, "hf://org/tiny", backend="genai-builder", precision="fp32", output=None)
    assert version.label == "tiny:1"
    assert version.manifest.source.startswith("hf://org/tiny@aaaa")
    assert version.manifest.licence == "MIT"
    assert not any(seen.path.endswith((".py", ".onnx")) for seen in hub.seen)
    np.testing.assert_allclose(served_logits(version.variants[0].folder, IDS), source_logits(llama, IDS), atol=1e-3)


def test_pickles_of_the_hub_are_fetched_only_when_requested(
    context: TaskContext, hub: LocalServer, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in pickled(llama, tmp_path / "pickled").iterdir()}
    add_repository(hub, "org/old", files)
    with pytest.raises(UnsupportedModel, match="pickles only"):
        converted(context, "hf://org/old")
    assert not any(seen.path.endswith(".bin") for seen in hub.seen)
    assert converted(context, "hf://org/old", allow_pickle=True, precision="fp32").manifest.importer == "checkpoint"
