"""Workflows run no code that arrives as data, unless the configuration allows it; decided before Olive is imported."""

from __future__ import annotations

import codecs
import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.permissions import Grants
from jobs.task import InvalidJob, TaskContext
from jobs.tasks.olive import task as olive
from jobs.tasks.olive.allowlist import check_runs_no_code, code_in
from jobs.tasks.olive.workflow import read_workflow

BUILD = {"type": "ModelBuilder", "precision": "int4"}
MODEL = {"type": "HfModel", "model_path": "/models/tiny"}
LOCAL = {"type": "LocalSystem", "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}


def refused(workflow: dict[str, Any], *, has_own_model: bool = False) -> list[str | None]:
    """The paths that are not allowed."""
    try:
        check_runs_no_code(workflow, has_own_model=has_own_model)
    except InvalidJob as error:
        return [problem.param if "allow_code = true" in problem.message else None for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "workflow",
    [
        {"input_model": MODEL, "passes": {"build": BUILD}},
        {
            "input_model": {"type": "hfmodel", "config": {"model_path": "/m", "task": "text-generation"}},
            "passes": {"b": [BUILD, BUILD]},
        },
        {
            "input_model": {"type": "ONNXModel", "model_path": "/m", "onnx_file_name": "model.onnx"},
            "passes": {"b": {"type": "OnnxFloatToFloat16"}},
        },
        {"input_model": MODEL, "systems": {"here": LOCAL}, "engine": {"host": "here", "target": LOCAL}, "passes": {"b": BUILD}},
        {
            "input_model": MODEL,
            "log_severity_level": 1,
            "output_dir": "x",
            "cache_dir": "y",
            "evaluate_input_model": False,
            "passes": {},
        },
        {"input_model": MODEL, "passes": {"b": {"type": "Rtn", "config": {"bits": 4, "group_size": 16}, "host": "here"}}},
        {"input_model": MODEL, "passes": {"b": {**BUILD, "extra_options": {"int4_algo_config": "rtn", "shared_embeddings": True}}}},
    ],
)
def test_what_is_data_alone_passes(workflow: dict[str, Any]) -> None:
    assert refused(workflow) == []


SCRIPT = {"user_script": "/tmp/x.py"}


@pytest.mark.parametrize(
    ("more", "path"),
    [
        ({"data_configs": [{"name": "d", **SCRIPT}]}, "workflow.data_configs"),
        ({"evaluators": {"e": {"metrics": [{"user_config": SCRIPT}]}}}, "workflow.evaluators"),
        ({"evaluator": {"user_script": "x.py"}}, "workflow.evaluator"),
        ({"engine": {"evaluator": {"user_script": "x.py"}}}, "workflow.engine.evaluator"),
        ({"engine": {"search_strategy": {"sampler": "x"}}}, "workflow.engine.search_strategy"),
        ({"packaging_config": {"type": "Dockerfile"}}, "workflow.packaging_config"),
        ({"engine": {"packaging_config": {}}}, "workflow.engine.packaging_config"),
        ({"azureml_client": {}}, "workflow.azureml_client"),
        ({"workflow_id": "../../x"}, "workflow.workflow_id"),
        ({"input_model": {**MODEL, "load_kwargs": {"trust_remote_code": True}}}, "workflow.input_model.load_kwargs"),
        (
            {"input_model": {"type": "HfModel", "config": {"model_path": "/m", "load_kwargs": {}}}},
            "workflow.input_model.config.load_kwargs",
        ),
        ({"input_model": {**MODEL, "io_config": "my_function"}}, "workflow.input_model.io_config"),
        ({"input_model": {**MODEL, "adapter_path": "/a"}}, "workflow.input_model.adapter_path"),
        ({"input_model": {"type": "PyTorchModel", "model_path": "/m.pt"}}, "workflow.input_model.type"),
        ({"input_model": {**MODEL, "model_loader": "f", "model_script": "x.py"}}, "workflow.input_model.model_loader"),
        ({"input_model": {**MODEL, "model_path": {"type": "azureml_model"}}}, "workflow.input_model.model_path"),
        (
            {"input_model": {"type": "ONNXModel", "model_path": "/m", "onnx_file_name": "../x.onnx"}},
            "workflow.input_model.onnx_file_name",
        ),
        ({"input_model": {**MODEL, "inference_settings": {}}}, "workflow.input_model.inference_settings"),
        ({"systems": {"s": {"type": "PythonEnvironment", "python_environment_path": "/x"}}}, "workflow.systems.s.type"),
        ({"systems": {"s": {**LOCAL, "hf_token": True}}}, "workflow.systems.s.hf_token"),
        ({"host": {"type": "Docker", "dockerfile": "x"}}, "workflow.host.type"),
        (
            {
                "target": {
                    "type": "LocalSystem",
                    "accelerators": [{"device": "cpu", "execution_providers": [["XExecutionProvider", "/x.so"]]}],
                }
            },
            "workflow.target.accelerators.0.execution_providers.0",
        ),
        ({"passes": {"p": {"type": "OnnxConversion", **SCRIPT}}}, "workflow.passes.p.user_script"),
        ({"passes": {"p": {"type": "OnnxConversion", "config": {"script_dir": "/x"}}}}, "workflow.passes.p.config.script_dir"),
        ({"passes": {"p": [BUILD, {"type": "AutoAWQQuantizer"}]}}, "workflow.passes.p.1.type"),
        ({"passes": {"p": {"type": "QuarkQuantization"}}}, "workflow.passes.p.type"),
        ({"passes": {"p": {"type": "LoRA", "train_data_config": "d"}}}, "workflow.passes.p.type"),
        ({"passes": {"p": {**BUILD, "extra_options": {"hf_remote": True}}}}, "workflow.passes.p.extra_options.hf_remote"),
        ({"passes": {"p": {**BUILD, "extra_options": {"adapter_path": "/x"}}}}, "workflow.passes.p.extra_options.adapter_path"),
        ({"passes": {"p": {**BUILD, "precision": {"olive_parameter_type": "SearchParameter"}}}}, "workflow.passes.p.precision"),
        ({"passes": {"p": {**BUILD, "evaluator": {"user_script": "x"}}}}, "workflow.passes.p.evaluator"),
        ({"passes": {"p": {"type": "Rtn", "external_data_name": "../../x"}}}, "workflow.passes.p.external_data_name"),
        ({"passes": {"../x": BUILD}}, "workflow.passes.../x"),
    ],
)
def test_what_could_name_code_is_refused_by_its_path(more: dict[str, Any], path: str) -> None:
    assert path in refused({"input_model": MODEL, "passes": {"b": BUILD}} | more)


@pytest.mark.parametrize(
    ("workflow", "path"),
    [
        ({"passes": {"b": BUILD}}, "workflow.input_model"),
        ({"input_model": "x", "passes": {"b": BUILD}}, "workflow.input_model"),
        ({"input_model": MODEL, "passes": [BUILD]}, "workflow.passes"),
        ({"input_model": MODEL, "passes": {"b": {"bits": 4}}}, "workflow.passes.b.type"),
        ({"input_model": MODEL, "engine": "x", "passes": {"b": BUILD}}, "workflow.engine"),
    ],
)
def test_nobody_is_advised_to_allow_code_for_a_mistake(workflow: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        check_runs_no_code(workflow, has_own_model=False)
    assert [problem.param for problem in caught.value.problems] == [path]
    assert "allow_code" not in str(caught.value)


def test_a_version_takes_the_place_of_whatever_model_the_workflow_has() -> None:
    assert refused({"input_model": {"type": "PyTorchModel", **SCRIPT}, "passes": {"b": BUILD}}, has_own_model=True) == []


@pytest.mark.parametrize("name", ["w.json", "w.yaml"])
def test_a_byte_order_mark_is_read_over(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(codecs.BOM_UTF8 + json.dumps({"passes": {"b": BUILD}}).encode())
    assert read_workflow(str(path)) == {"passes": {"b": BUILD}}


@pytest.mark.parametrize(
    ("content", "expected_text"),
    [
        ('{"passes": {}}'.encode("utf-16"), "iconv -f UTF-16LE -t UTF-8"),
        ('{"passes": "\u00e9"}'.encode("latin-1"), "iconv -f ISO-8859-1 -t UTF-8"),
        (gzip.compress(b"{}", mtime=0), "gunzip"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
    ],
)
@pytest.mark.parametrize("name", ["w.json", "w.yaml"])
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(
    tmp_path: Path, name: str, content: bytes, expected_text: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidJob, match=expected_text):
        read_workflow(str(path))


def test_a_script_does_not_run_even_in_a_plan_and_olive_is_not_imported(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    workflow = {"input_model": MODEL, "passes": {"b": BUILD}, "data_configs": [{"name": "d", "user_script": str(script)}]}
    program = f"""
import sys
from pathlib import Path
from jobs.task import InvalidJob
from jobs.tasks.olive import task as olive
from tests.doubles.tiny_checkpoint import task_context
with task_context(Path({str(tmp_path / "home")!r})) as context:
    for act in (olive.TASK.plan, olive.TASK.run):
        try:
            act(olive.OliveParams(workflow={workflow!r}, output="made"), context)
        except InvalidJob as error:
            print(error.code, "olive" in sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=Path(__file__).parents[3]
    )
    assert run.stdout.split() == ["code_not_allowed", "False"] * 2, run.stderr
    assert not (tmp_path / "ran").exists()


def test_the_script_runs_where_the_configuration_allows_it(context: TaskContext, llama: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    model = {"type": "HfModel", "model_path": str(llama)}
    workflow = {"input_model": model, "passes": {"b": BUILD}, "data_configs": [{"name": "d", "user_script": str(script)}]}
    olive.TASK.plan(olive.OliveParams(workflow=workflow, output="made"), replace(context, grants=Grants(allow_code=True)))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("where", ["/etc", "relative/../../../../etc", "org/name-of-the-hub"])
def test_a_model_lies_in_a_folder_that_is_allowed(context: TaskContext, tmp_path: Path, where: str) -> None:
    allowed = replace(context, grants=Grants(data_roots=(str(tmp_path / "models"),)))
    workflow = {"input_model": {"type": "HfModel", "model_path": where}, "passes": {"b": BUILD}}
    with pytest.raises(InvalidJob, match=r"lies in no folder that is allowed\. List its folder|pickles|neither") as caught:
        olive.TASK.plan(olive.OliveParams(workflow=workflow, output="made"), allowed)
    assert caught.value.param == "workflow.input_model.model_path"


def test_a_folder_with_code_or_pickles_is_no_data(context: TaskContext, tmp_path: Path) -> None:
    folder = tmp_path / "models/evil"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "auto_map": {"AutoConfig": "evil.Evil"}}))
    allowed = replace(context, grants=Grants(data_roots=(str(tmp_path / "models"),)))
    workflow = {"input_model": {"type": "HfModel", "model_path": str(folder)}, "passes": {"b": BUILD}}
    with pytest.raises(InvalidJob, match=r"names Python code to be run \(config\.json, `auto_map`\)"):
        olive.TASK.plan(olive.OliveParams(workflow=workflow, output="made"), allowed)
    (folder / "config.json").write_text(json.dumps({"text_config": [{"auto_map": {"A": "b"}}]}))
    assert "auto_map" in (code_in(folder) or "")
    (folder / "config.json").write_text("{}")
    assert code_in(folder) is None
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickles (pytorch_model.bin)" in (code_in(folder) or "")
    (folder / "MLmodel").touch()
    assert "MLflow" in (code_in(folder) or "")
