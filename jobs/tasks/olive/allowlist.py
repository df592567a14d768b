"""Whether a workflow runs nothing but Olive's own code: checked by a list of what may be there, before Olive is imported.

A list of what may not would miss what the next release adds. What is not on the list is refused by its path. A model's folder is
looked at for code, or weights that can hold code, before a library reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.task import InvalidJob, Problem
from jobs.tasks.olive.plain_passes import PLAIN_BUILDER_OPTIONS, PLAIN_PASSES

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PROVIDER = re.compile(r"[A-Za-z]{1,64}ExecutionProvider")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\.onnx")
_PLACED = frozenset({"output_dir", "cache_dir", "cache_config", "clean_cache", "clean_evaluation_cache"})  # replaced by our own
_ENGINE = frozenset(
    {
        *("host", "target", "search_strategy", "evaluate_input_model", "plot_pareto_frontier", "no_artifacts"),
        *(
            "log_severity_level",
            "ort_log_severity_level",
            "ort_py_log_severity_level",
            "enable_shared_cache",
            "log_to_file",
            *_PLACED,
        ),
    }
)
_TOP = frozenset({"workflow_id", "input_model", "systems", "engine", "passes"})
_PATH = re.compile(r"[^\0]+", re.DOTALL)
_MODEL_TYPES = ("hfmodel", "onnxmodel")
_MODEL_SETTINGS = frozenset({"model_path", "task", "onnx_file_name"})
Found = Iterator[Problem]
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_MOST_BYTES = 64 << 20  # of a configuration, beyond which it is none


def check_runs_no_code(workflow: Mapping[str, Any], *, has_own_model: bool) -> None:
    """has_own_model: a version's checkpoint takes the place of the workflow's model. Raises InvalidJob with every problem."""
    problems = list(_workflow(workflow, has_own_model))
    if problems:
        raise InvalidJob(problems)


def model_path_of(workflow: Mapping[str, Any]) -> str | None:
    """The path of a checked workflow's input model, as it is written there."""
    model = workflow.get("input_model") or {}
    found = [part["model_path"] for _, part in _parts(model, "") if "model_path" in part]
    return found[-1] if found else None


def _workflow(workflow: Mapping[str, Any], has_own_model: bool) -> Found:
    engine = workflow.get("engine")
    yield from _keys(workflow, _TOP | _ENGINE, "workflow", _TOP)
    if "workflow_id" in workflow:
        yield from _matches(workflow["workflow_id"], _WORD, "workflow.workflow_id")
    if not has_own_model and workflow.get("input_model") is None:
        message = "The workflow has no input_model: give it one, or name a version in `model`."
        yield Problem(message, param="workflow.input_model", code="missing_required_parameter")
    elif not has_own_model:
        yield from _model(workflow["input_model"], "workflow.input_model")
    yield from _each(workflow.get("systems"), _system, "workflow.systems")
    yield from _each(workflow.get("passes"), _passes, "workflow.passes")
    yield from _engine(workflow, "workflow")
    if isinstance(engine, Mapping):
        yield from _keys(engine, _ENGINE, "workflow.engine", _ENGINE - _PLACED)
        yield from _engine(engine, "workflow.engine")
    elif engine is not None:
        yield from _mapping(engine, "workflow.engine")


def _engine(given: Mapping[str, Any], place: str) -> Found:
    for name in _ENGINE - _PLACED - {"host", "target"}:
        if name in given:
            yield from _scalar(given[name], f"{place}.{name}")
    for name in ("host", "target"):
        if isinstance(given.get(name), Mapping):
            yield from _system(given[name], f"{place}.{name}")
        elif given.get(name) is not None:
            yield from _matches(given[name], _WORD, f"{place}.{name}")


def _model(model: Any, place: str) -> Found:
    yield from _mapping(model, place)
    if not isinstance(model, Mapping):
        return
    kind = str(model.get("type", ""))
    if kind.lower() not in _MODEL_TYPES:
        yield _problem(f"{place}.type", f"{kind[:100]!r} is not allowed", ("HfModel", "ONNXModel"))
    yield from _settings(model, _MODEL_SETTINGS, place)
    patterns = {"task": _WORD, "onnx_file_name": _FILE_NAME, "model_path": _PATH}
    for at, given in _parts(model, place):
        for name in patterns.keys() & given.keys():
            yield from _matches(given[name], patterns[name], f"{at}.{name}")


def _system(system: Any, place: str) -> Found:
    yield from _mapping(system, place)
    if not isinstance(system, Mapping):
        return
    if str(system.get("type", "")).lower() != "localsystem":
        yield _problem(f"{place}.type", "is another machine or environment", ("LocalSystem",))
    yield from _settings(system, frozenset({"accelerators"}), place)
    for at, given in _parts(system, place):
        accelerators = given.get("accelerators") or []
        for index, each in enumerate(accelerators if isinstance(accelerators, list) else [accelerators]):
            yield from _accelerator(each, f"{at}.accelerators.{index}")


def _accelerator(given: Any, place: str) -> Found:
    if not isinstance(given, Mapping):
        yield from _mapping(given, place)
        return
    yield from _keys(given, {"device", "execution_providers", "memory"}, place, ("device", "execution_providers", "memory"))
    for name in ("device", "memory"):
        yield from _scalar(given.get(name), f"{place}.{name}")
    providers = given.get("execution_providers") or []
    for index, each in enumerate(providers if isinstance(providers, list) else [providers]):
        yield from _matches(each, _PROVIDER, f"{place}.execution_providers.{index}")


def _passes(given: Any, place: str) -> Found:
    """One name's pass, or several in a list."""
    yield from _matches(place.rpartition(".")[2], _WORD, place)
    several = isinstance(given, list)
    for index, each in enumerate(given if several else [given]):
        yield from _pass(each, f"{place}.{index}" if several else place)


def _pass(given: Any, place: str) -> Found:
    if not isinstance(given, Mapping):
        yield from _mapping(given, place)
        return
    kind = given.get("type")
    if not isinstance(kind, str):
        yield Problem(f'{place}.type: name the pass, such as {{"type": "Rtn"}}.', param=f"{place}.type")
        return
    settings = PLAIN_PASSES.get(kind.lower())
    if settings is None:
        yield _problem(f"{place}.type", f"the pass {kind[:100]!r} is not on the list", sorted(PLAIN_PASSES))
        return
    yield from _settings(given, settings, place, "host")
    if "host" in given:
        yield from _engine({"host": given["host"]}, place)
    for at, values in _parts(given, place):
        for name in sorted(settings & values.keys()):
            check = _builder_options if name == "extra_options" else _plain
            yield from check(values[name], f"{at}.{name}")


def _builder_options(given: Any, place: str) -> Found:
    yield from _mapping(given, place)
    if isinstance(given, Mapping):
        yield from _keys(given, PLAIN_BUILDER_OPTIONS, place, PLAIN_BUILDER_OPTIONS)
        for name in PLAIN_BUILDER_OPTIONS & given.keys():
            yield from _plain(given[name], f"{place}.{name}")


# ---- values ----


def _parts(given: Mapping[str, Any], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(path, object) of the object itself and of its `config`, in which Olive takes the same settings."""
    yield place, given
    if isinstance(given.get("config"), Mapping):
        yield f"{place}.config", given["config"]


def _settings(given: Mapping[str, Any], names: frozenset[str], place: str, *others: str) -> Found:
    """Refuses all but these settings, in the object or in its `config`. others: allowed keys beside `type` and `config`."""
    yield from _keys(given, names | {"type", "config", *others}, place, names)
    if given.get("config") is not None:
        yield from _mapping(given["config"], f"{place}.config")
    if isinstance(given.get("config"), Mapping):
        yield from _keys(given["config"], names, f"{place}.config", names)


def _each(given: Any, check: Callable[[Any, str], Found], place: str) -> Found:
    if given is None:
        return
    yield from _mapping(given, place)
    for name, value in given.items() if isinstance(given, Mapping) else ():
        yield from check(value, f"{place}.{name}")


def _plain(value: Any, place: str) -> Found:
    """A scalar, or a list of such: no object, in which code could be named."""
    for each in value if isinstance(value, list) else [value]:
        for inner in each if isinstance(each, list) else [each]:
            yield from _scalar(inner, place)


def _scalar(value: Any, place: str) -> Found:
    if not (value is None or isinstance(value, str | bool | int | float)):
        yield _problem(place, "must be a plain value", ())


def _mapping(value: Any, place: str) -> Found:
    """Raises InvalidJob for a value that is no object, which no permission could make valid."""
    if not isinstance(value, Mapping):
        yield Problem(f"{place}: must be an object.", param=place)


def _matches(value: Any, pattern: re.Pattern[str], place: str) -> Found:
    if not (isinstance(value, str) and pattern.fullmatch(value)):
        yield _problem(place, "must be a plain name", ())


def _keys(given: Mapping[str, Any], allowed: Any, place: str, shown: Any) -> Found:
    for name in given:
        if name not in allowed:
            yield _problem(f"{place}.{str(name)[:100]}", "is not on the list of what runs no code", sorted(shown))


def _problem(place: str, what: str, allowed: Any) -> Problem:
    listed = f"; allowed are {', '.join(allowed)}" if allowed else ""
    remedy = "Where workflows may run code, set allow_code = true in [jobs] of slmops.toml, and restart the daemon."
    return Problem(f"{place}: {what}{listed}. {remedy}", param=place, code="code_not_allowed")


def code_in(folder: Path) -> str | None:
    """What in a checkpoint's folder could run code when transformers reads it, as a part of a sentence; None for nothing."""
    if (folder / "MLmodel").exists():
        return "is a package of MLflow, which names loaders"
    if not any(folder.glob("*.safetensors")) and (pickles := sorted(each for kind in _PICKLES for each in folder.glob(kind))):
        return f"has its weights as pickles ({pickles[0].name})"
    for path in sorted(folder.glob("*.json")):
        if path.stat().st_size <= _MOST_BYTES and _names_code(path):
            return f"names Python code to be run ({path.name}, `auto_map`)"
    return None


def _names_code(path: Path) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return False  # no library can read it either; loading it fails with the reason
    return _has_auto_map(content)


def _has_auto_map(value: Any) -> bool:
    if isinstance(value, dict):
        return bool(value.get("auto_map")) or any(_has_auto_map(each) for each in value.values())
    return isinstance(value, list) and any(_has_auto_map(each) for each in value)
