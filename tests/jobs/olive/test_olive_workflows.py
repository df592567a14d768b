"""Real workflows of Olive on tiny models: checked, run, registered, resumed; nothing reported to anybody."""

from __future__ import annotations

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.permissions import Grants
from jobs.task import InvalidJob, JobFailure, TaskContext
from jobs.tasks.convert import task as convert
from jobs.tasks.olive import task as olive
from jobs.tasks.olive.running import Made, servable
from jobs.tasks.outputs import source_of
from model_registry.pull import pull
from model_registry.records import Precision
from model_registry.registry import open_registry
from tests.doubles.peft_folder import random_matrices, write_peft
from tests.doubles.tiny_checkpoint import answer, served_logits, source_logits
from tests.doubles.tiny_gguf import Tiny, write_gguf

pytestmark = pytest.mark.filterwarnings("ignore")  # of PyTorch, transformers and Olive, about each other
IDS = [5, 9, 100, 33, 7, 8]
BUILD = {"type": "ModelBuilder", "precision": "fp32"}


@pytest.fixture
def context(context: TaskContext, tmp_path_factory: pytest.TempPathFactory) -> TaskContext:
    """Of a machine whose models lie where tests make them."""
    return replace(context, grants=Grants(data_roots=(str(tmp_path_factory.getbasetemp()),)))


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """Addresses that anybody tries to reach meanwhile; the user's folders are empty ones."""
    tried: list[Any] = []

    def refuse(_: socket.socket, address: Any) -> None:
        tried.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "user"))
    return tried


def workflow(source: Path | None, **passes: dict[str, Any]) -> dict[str, Any]:
    given = {"input_model": {"type": "HfModel", "model_path": str(source)}} if source else {}
    return given | {"passes": passes, "log_severity_level": 1}


def test_two_passes_make_a_version_that_is_served_and_nothing_is_sent(
    context: TaskContext, llama: Path, tmp_path: Path, connections: list[Any]
) -> None:
    file = tmp_path / "workflow.json"
    rounded = {"type": "OnnxBlockWiseRtnQuantization", "block_size": 32}
    file.write_text(json.dumps(workflow(llama, build=BUILD, round=rounded)))
    params = olive.OliveParams(workflow=str(file), output="made")
    plan = olive.TASK.plan(params, context)
    assert plan.num_steps == 2
    assert "build (ModelBuilder), then round (OnnxBlockWiseRtnQuantization)" in plan.summary[1]
    outcome = olive.TASK.run(params, context)
    assert outcome.version == "made:1"
    version = context.registry.resolve("made")
    assert (version.manifest.source, version.manifest.importer) == (source_of("job-1"), "olive")
    assert version.variants[0].precision is Precision.INT4
    assert version.manifest.data_sha256 == version.manifest.parameters["workflow_sha256"]
    assert {"olive-ai", "onnxruntime-genai"} <= version.manifest.library_versions.keys()
    assert {"perplexity", "perplexity_source"} <= version.manifest.metrics.keys()
    assert answer(version.variants[0].folder, context)
    assert "output/run_history.txt" in outcome.files
    stages: list[str] = context.reporter.stages  # type: ignore[attr-defined]
    assert [stage for stage in stages if stage.startswith("pass ")] == [
        "pass build (modelbuilder)",
        "pass round (onnxblockwisertnquantization)",
    ]
    _assert_no_network(tmp_path, connections)
    assert olive.TASK.run(params, context).version == "made:1"  # an attempt after the one that registered


def _assert_no_network(tmp_path: Path, connections: list[Any]) -> None:
    from olive.telemetry.library.telemetry_logger import TelemetryLogger
    from olive.telemetry.telemetry import Telemetry
    from opentelemetry._logs import get_logger_provider

    assert Telemetry()._logger is None
    assert TelemetryLogger._instance is None
    assert type(get_logger_provider()).__name__ == "ProxyLoggerProvider"
    assert not list(tmp_path.glob("user/**/Microsoft"))
    assert connections == []


def test_a_version_takes_the_place_of_the_workflow_s_model(context: TaskContext, tmp_path: Path) -> None:
    with open_registry(tmp_path / "home") as registry:
        base = pull(registry, str(write_gguf(tmp_path / "tiny.gguf", Tiny())), name="tiny", precision=Precision.FP32)
    requested = workflow(Path("/nowhere"), build={"type": "ModelBuilder", "precision": "int4", "int4_block_size": 64})
    params = olive.OliveParams(workflow=requested, output="made", model="tiny")
    olive.TASK.plan(params, context)
    version = context.registry.resolve(olive.TASK.run(params, context).version or "")
    assert version.manifest.parent == base.label
    near, truth = served_logits(version.variants[0].folder, IDS), served_logits(base.variants[0].folder, IDS)
    assert 0.8 < np.corrcoef(near, truth)[0, 1] < 0.9999


def test_a_killed_job_goes_on_from_olive_s_cache(context: TaskContext, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(model: Any) -> Made:
        raise KeyboardInterrupt

    params = olive.OliveParams(workflow=workflow(llama, build=BUILD), output="made")
    with monkeypatch.context() as patched:
        patched.setattr("jobs.tasks.olive.task.made_of", killed)
        with pytest.raises(KeyboardInterrupt):
            olive.TASK.run(params, context)
    built = list((context.folder / "cache").rglob("model.onnx"))
    assert built
    times = [path.stat().st_mtime_ns for path in built]
    assert olive.TASK.run(params, context).version == "made:1"
    assert [path.stat().st_mtime_ns for path in built] == times


def test_what_cannot_be_served_stays_a_file(context: TaskContext, llama: Path) -> None:
    params = olive.OliveParams(workflow=workflow(llama, shrink={"type": "Rtn", "bits": 4, "group_size": 16}), output="made")
    outcome = olive.TASK.run(params, context)
    assert outcome.version is None
    assert "output" in outcome.details["kept"][0]
    assert any(name.endswith(".safetensors") and (context.folder / name).is_file() for name in outcome.files)
    assert context.registry.models() == ()


def test_an_adapter_is_a_variant_beside_the_merged_model(context: TaskContext, llama: Path, tmp_path: Path) -> None:
    adapter = write_peft(tmp_path / "adapter", random_matrices({"v_proj": (32, 64)}, layers=2, rank=2, seed=1), alpha=4)
    (tmp_path / "staging").mkdir()
    found = servable(Made(llama, adapter, {"accuracy": 0.5}), llama, tmp_path / "staging", context)
    assert [variant.role for variant in found.variants] == ["serve", "checkpoint", "adapter"]
    assert found.metrics["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("requested", "field", "expected_text"),
    [
        ({"passes": {"a": {"type": "Nonsense"}}}, "workflow.passes.a.type", "no pass of the type 'Nonsense'"),
        ({"passes": {}}, "workflow.passes", "no passes"),
        ({"passes": {"a": BUILD}, "input_model": {"config": {}}}, "workflow.input_model.type", "Field required"),
        ({"passes": {"a": BUILD}, "engine": {"searching": 1}}, "workflow.engine.searching", "not permitted"),
        ({"passes": {"a": {"type": "GptqModel"}}}, "workflow.passes.a.type", "pip install gptqmodel optimum"),
        ({"passes": {"a": BUILD}, "packaging_config": []}, "workflow", "packaging_config"),
    ],
)
def test_workflows_that_cannot_work_are_refused(
    context: TaskContext, llama: Path, requested: Any, field: str, expected_text: str
) -> None:
    trusting = replace(context, grants=Grants(allow_code=True))
    with pytest.raises(InvalidJob) as caught:
        olive.TASK.plan(olive.OliveParams(workflow={**workflow(llama), **requested}, output="made"), trusting)
    assert (field, True) in [(problem.param, expected_text in problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [("w.json", '{\n"a": }', ":2: it is not JSON"), ("w.yaml", "a: b\nc: [", ":2: it is not YAML"), ("w.json", "[]", "no object")],
)
def test_files_that_are_no_workflows(context: TaskContext, tmp_path: Path, name: str, text: str, place: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidJob, match=place):
        olive.TASK.plan(olive.OliveParams(workflow=str(tmp_path / name), output="made"), context)


def test_a_pass_that_fails_fails_the_job_with_its_reason(context: TaskContext, llama: Path) -> None:
    params = olive.OliveParams(workflow=workflow(llama, round={"type": "OnnxBlockWiseRtnQuantization"}), output="made")
    with pytest.raises(JobFailure, match="Olive made no model") as caught:
        olive.TASK.run(params, context)
    assert caught.value.code == "olive_failed"


def test_without_the_extra_the_command_is_named(context: TaskContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.tasks.olive.task.find_spec", lambda _: None)
    with pytest.raises(InvalidJob, match=r"pip install 'slmops\[olive\]'"):
        olive.TASK.plan(olive.OliveParams(workflow={}, output="made"), context)
    monkeypatch.setattr("jobs.tasks.convert.backends.find_spec", lambda _: None)
    with pytest.raises(InvalidJob, match=r"pip install 'slmops\[olive\]'"):
        convert.TASK.plan(convert.ConvertParams(source="hf://org/model", backend="olive"), context)


@pytest.mark.parametrize("requested", [{"precision": "fp32"}, {"precision": "fp16", "execution_provider": "cuda"}])
def test_convert_by_olive(context: TaskContext, llama: Path, requested: dict[str, Any]) -> None:
    params = convert.ConvertParams(source=str(llama), output="made", backend="olive", **requested)
    version = context.registry.resolve(convert.TASK.run(params, context).version or "")
    assert version.manifest.importer == "olive"
    assert version.variants[0].provider_family == requested.get("execution_provider", "cpu")
    if version.variants[0].provider_family == "cpu":
        np.testing.assert_allclose(served_logits(version.variants[0].folder, IDS), source_logits(llama, IDS), atol=1e-3)
