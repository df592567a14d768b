"""A workflow file of Olive as values: read, put into the job's folder, checked by Olive itself. Runs nothing."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobs.datasets.lines import of_broken_utf8, what_it_looks_like
from jobs.task import InvalidJob, Problem

_PLACES = ("output_dir", "cache_dir", "cache_config", "clean_cache", "clean_evaluation_cache", "enable_shared_cache", "log_to_file")
_REFUSED = {"packaging_config": "the result is registered, not packaged: leave it out"}


def read_workflow(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """The object that was given, or the one in the JSON or YAML file. Raises InvalidJob with the place."""
    if not isinstance(given, str):
        return copy.deepcopy(dict(given))
    path = Path(given).expanduser()
    text = _text(path)
    try:
        read = _yaml(path, text) if path.suffix in (".yaml", ".yml") else _json(path, text)
    except RecursionError:
        raise InvalidJob([Problem("it is nested too deeply.", param="workflow", file=str(path))]) from None
    if not isinstance(read, dict):
        message = "it holds no object. An Olive workflow is one, with `input_model` and `passes`."
        raise InvalidJob([Problem(message, param="workflow", file=str(path))])
    return read


def placed(workflow: Mapping[str, Any], folder: Path, input_model: Path | None) -> dict[str, Any]:
    """The workflow with its output and cache in the job's folder, and with the checkpoint `input_model`, if any, as its input
    model.
    """
    own = copy.deepcopy(dict(workflow))
    engine = dict(own.get("engine") or {})
    problems = [Problem(f"{name}: {why}.", param="workflow") for name, why in _REFUSED.items() if name in own or name in engine]
    if problems:
        raise InvalidJob(problems)
    for name in _PLACES:
        own.pop(name, None)
        engine.pop(name, None)
    if engine:
        own["engine"] = engine
    if input_model is not None:
        own["input_model"] = {"type": "HfModel", "model_path": str(input_model)}
    return own | {"output_dir": str(folder / "output"), "cache_dir": str(folder / "cache")}


def sha256_of(workflow: Mapping[str, Any]) -> str:
    """The digest of the workflow as requested, independent of its file's format."""
    return hashlib.sha256(json.dumps(workflow, sort_keys=True).encode()).hexdigest()


def pass_types(workflow: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(the pass's name, its type), in order; a name may have several."""
    passes = workflow.get("passes") or {}
    for name, given in passes.items() if isinstance(passes, dict) else ():
        for each in given if isinstance(given, list) else [given]:
            if isinstance(each, dict) and isinstance(each.get("type"), str):
                yield str(name), each["type"]


def check(workflow: Mapping[str, Any]) -> None:
    """Checks the workflow by Olive's own model, which must have been imported. Raises InvalidJob with every problem."""
    from olive.package_config import OlivePackageConfig
    from olive.workflows.run.config import RunConfig

    problems: list[Problem] = []
    known = OlivePackageConfig.load_default_config()
    for name, kind in pass_types(workflow):
        problems += _problems_of_pass(known, name, kind)
    if not any(True for _ in pass_types(workflow)):
        problems.append(Problem("The workflow has no passes, so it would have no result.", param="workflow.passes"))
    try:
        config = RunConfig.parse_file_or_obj(copy.deepcopy(dict(workflow)))
    except ValidationError as error:
        problems += [_problem(each["loc"], each["msg"]) for each in error.errors(include_input=False, include_url=False)]
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        problems.append(Problem(f"Olive cannot read the workflow: {error}.", param="workflow"))
    else:
        if config.engine.host is not None and config.engine.host.type == "Docker":
            problems.append(Problem("Workflows in Docker are not run here. Leave `host` out.", param="workflow.engine.host"))
    if problems:
        raise InvalidJob(problems)


def _problems_of_pass(known: Any, name: str, kind: str) -> Iterator[Problem]:
    place = f"workflow.passes.{name}"
    try:
        module = known.get_pass_module_config(kind)
    except ValueError:
        yield Problem(f"Olive has no pass of the type {kind!r}.", param=f"{place}.type")
        return
    wanted = [*module.module_dependencies]
    for extra in module.extra_dependencies:
        wanted += known.extra_dependencies.get(extra, [])
    missing = [each for each in wanted if not _is_here(each)]
    if missing:
        command = "pip install " + " ".join(f"'{each}'" if set(each) & set("<>=[") else each for each in missing)
        message = f"The pass {kind} needs packages that are not here: {command}."
        yield Problem(message, param=f"{place}.type", code="missing_package")


def _is_here(wanted: str) -> bool:
    from packaging.requirements import Requirement

    requirement = Requirement(wanted)
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def _problem(location: tuple[int | str, ...], message: str) -> Problem:
    place = ".".join(map(str, ("workflow", *location)))
    return Problem(f"{place}: {message.removeprefix('Value error, ')}", param=place)


def _text(path: Path) -> str:
    """Decodes the file as training data is decoded: removes a byte order mark; another encoding or a compression raises with the
    remedy.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidJob([Problem(f"{path.name} cannot be read: {error.strerror}.", param="workflow")]) from None
    if (found := what_it_looks_like(content)) is None:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError:
            found = of_broken_utf8(content)
    what, remedy, code = found
    raise InvalidJob([Problem(f"The file {what}. {remedy}", param="workflow", file=str(path), code=code)])


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", None)
        raise InvalidJob([Problem(f"it is not JSON ({error}).", param="workflow", file=str(path), line=line)]) from None


def _yaml(path: Path, text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else mark.line + 1
        reason = getattr(error, "problem", None) or "it cannot be parsed"
        raise InvalidJob([Problem(f"it is not YAML ({reason}).", param="workflow", file=str(path), line=line)]) from None
