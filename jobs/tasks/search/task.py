"""Task `search`: Optuna looks for the params of another kind that make one of its figures best, and a page shows what it tried."""

from __future__ import annotations

import html
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, ValidationError

from jobs.choices import meant
from jobs.fields import Declared, declared_fields
from jobs.param_errors import problems_of
from jobs.task import (
    InvalidJob,
    JobFailure,
    JobKind,
    Outcome,
    Params,
    Plan,
    Problem,
    Reporter,
    StopReason,
    TaskContext,
)
from jobs.tasks.kinds import task_for
from jobs.tasks.preconditions import check_installed
from jobs.tasks.search.space import Range, extremes, filled, ranges

_REPORT = "search.html"


_NOT_SEARCHED = (JobKind.SEARCH, JobKind.PULL)  # the second is created by the registry's routes alone, which check it


class SearchParams(Params):
    """Searches for the params of another kind of job that optimize one of its metrics."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "finetune",
                    "params": {"model": "smollm2-135m", "data": "train.jsonl", "learning_rate": {"$float": [1e-5, 1e-3, "log"]}},
                    "objective": "loss",
                }
            ]
        }
    )

    kind: JobKind = Field(description="Any kind but search and pull.")
    params: dict[str, Any] = Field(description='As that kind takes them, with {"$float": [1e-5, 1e-3, "log"]}, $int or $choice.')
    objective: str = Field(min_length=1, description="The metric to optimize, such as eval_loss or f1.")
    direction: Literal["minimize", "maximize"] = Field("minimize")
    trials: int = Field(10, ge=1, le=1000, description="Number of trials.")
    timeout_s: float | None = Field(None, gt=0, description="No trial begins after this time.")
    prune_on: str | None = Field(
        None, description="A figure that is reported during a trial; hopeless trials are ended early by it."
    )
    output: str = Field("search", description="Prefix of the names of trials' models; only the best one stays.")
    seed: int = Field(0, ge=0, lt=2**32)

    @classmethod
    def declared(cls, params: Any) -> Declared:
        """The placed values of the other kind's params, in any trial."""
        kind = params.get("kind") if isinstance(params, Mapping) else None
        found = meant(kind, JobKind) if isinstance(kind, str) else None  # as it is spelt: validation accepts the same
        if found is not None and found not in _NOT_SEARCHED:
            yield from declared_fields(task_for(JobKind(found)).params, params.get("params"), ("params",))


class Search:
    """Finished trials are kept: after an interruption the others follow."""

    kind: ClassVar[JobKind] = JobKind.SEARCH
    params: ClassVar[type[Params]] = SearchParams

    def plan(self, params: SearchParams, context: TaskContext) -> Plan:
        if params.kind in _NOT_SEARCHED:
            raise InvalidJob([Problem(f"A search cannot run jobs of the kind {params.kind}.", param="kind")])
        try:
            found = list(ranges(params.params))
        except ValueError as error:
            raise InvalidJob([Problem(str(error), param="params")]) from None
        if not found:
            raise InvalidJob([Problem("Nothing varies: mark a param with $float, $int or $choice.", param="params")])
        check_installed(("optuna", "matplotlib"), "kind")
        for trial_params in extremes(params.params):
            _validated(params, trial_params, 0)
        one = task_for(params.kind).plan(_validated(params, filled(params.params, lambda each: each.first), 0), context)
        summary = (f"Tries {params.trials} times, varying {', '.join(each.path for each in found)}:", *one.summary)
        seconds = None if one.duration_s is None else one.duration_s * params.trials
        return replace(one, summary=summary, num_steps=params.trials, duration_s=seconds)

    def stages(self, params: SearchParams, context: TaskContext) -> tuple[str, ...]:
        """None: a trial is a stage, and has its number in its name."""
        return ()

    def run(self, params: SearchParams, context: TaskContext) -> Outcome:
        import optuna
        from optuna.trial import TrialState

        optuna.logging.disable_default_handler()
        study = optuna.create_study(
            storage=f"sqlite:///{context.folder / 'study.db'}",
            study_name=context.job,
            direction=params.direction,
            load_if_exists=True,
        )
        for trial in study.get_trials(states=(TrialState.RUNNING,)):  # of an attempt that was cut short
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
        begun = time.monotonic()
        while (done := _num_done(study)) < params.trials:
            if params.timeout_s is not None and time.monotonic() - begun > params.timeout_s:
                break
            study.sampler = optuna.samplers.TPESampler(seed=params.seed + done)
            context.stage(f"trial {done + 1} of {params.trials}")
            self._try(params, study, context)
        return _outcome(params, study, context)

    def _try(self, params: SearchParams, study: Any, context: TaskContext) -> None:
        import optuna

        trial = study.ask()
        trial_params = filled(params.params, lambda each: _suggested(trial, each))
        folder = context.folder / "trials" / str(trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        reporter = _TrialReporter(context.reporter, trial, params.prune_on)
        inner = replace(
            context, job=f"{context.job}-{trial.number}", folder=folder, reporter=reporter, attempt=1, shared=context.folder
        )
        try:
            outcome = task_for(params.kind).run(_validated(params, trial_params, trial.number), inner)
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            context.reporter.message(f"Trial {trial.number} was hopeless and ended early.")
            return
        except JobFailure as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            context.reporter.message(f"Trial {trial.number} failed: {error.message}", "warning")
            trial.study.set_user_attr(f"failed-{trial.number}", error.code)
            return
        if params.objective not in outcome.metrics:
            known = ", ".join(sorted(outcome.metrics))
            raise JobFailure(f"The outcome has no figure {params.objective!r}; it has {known}.", code="no_objective")
        if outcome.version is not None:
            trial.set_user_attr("version", outcome.version)
        study.tell(trial, outcome.metrics[params.objective])
        context.reporter.progress(_num_done(study), params.trials, {params.objective: outcome.metrics[params.objective]}, "trials")


@dataclass(slots=True)
class _TrialReporter:
    """Forwards a trial's reports, except its steps, which would be taken for the search's; and prunes it."""

    outer: Reporter
    trial: Any
    prune_on: str | None

    @property
    def stop(self) -> StopReason | None:
        return self.outer.stop

    def stage(self, name: str) -> None:
        self.outer.message(f"Trial {self.trial.number}: {name}.")

    def progress(self, step: int, total: int | None, metrics: Mapping[str, float], unit: str) -> None:
        import optuna

        if self.prune_on is not None and self.prune_on in metrics:
            self.trial.report(metrics[self.prune_on], step)
            if self.trial.should_prune():
                raise optuna.TrialPruned

    def message(self, text: str, level: str = "info") -> None:
        self.outer.message(text, level)

    def checkpoint(self, step: int, path: Path, metrics: Mapping[str, float]) -> None:
        """Ignores a trial's own checkpoints: the search continues from its study."""


def _validated(params: SearchParams, trial_params: dict[str, Any], number: int) -> Any:
    """Raises InvalidJob."""
    model = task_for(params.kind).params
    if "output" in model.model_fields:
        trial_params = {**trial_params, "output": f"{params.output}-{number}"}
    try:
        return model.model_validate(trial_params)
    except ValidationError as error:
        raise InvalidJob([each.within("params") for each in problems_of(error, model, str(params.kind))]) from None


def _suggested(trial: Any, each: Range) -> Any:
    if each.kind == "choice":
        return trial.suggest_categorical(each.path, each.values)
    if each.kind == "int":
        return trial.suggest_int(each.path, int(each.low), int(each.high), log=each.is_log)
    return trial.suggest_float(each.path, each.low, each.high, log=each.is_log)


def _num_done(study: Any) -> int:
    """Finished in any way, those that were cut short not counted."""
    from optuna.trial import TrialState

    failed: int = sum(name.startswith("failed-") for name in study.user_attrs)
    ended = len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)))
    return int(ended + failed)


def _outcome(params: SearchParams, study: Any, context: TaskContext) -> Outcome:
    from optuna.trial import TrialState

    complete = study.get_trials(states=(TrialState.COMPLETE,))
    if not complete:
        raise JobFailure("No trial came to its end. Look at the events for what failed, or narrow the ranges.", code="no_trial")
    best = study.best_trial
    for trial in complete:
        version = trial.user_attrs.get("version")
        if version is not None and trial.number != best.number:
            name = version.partition(":")[0]
            if any(model.name == name for model in context.registry.models()):
                context.registry.remove(name)
    place = next(index for index, trial in enumerate(complete) if trial.number == best.number)
    values, trial_params = [trial.value for trial in complete], [trial.params for trial in complete]
    (context.folder / _REPORT).write_text(page(f"Search of {params.objective}", values, trial_params, place), encoding="utf-8")
    details = {"params": best.params, "trial": best.number, "num_trials": len(study.trials), "num_complete": len(complete)}
    return Outcome(best.user_attrs.get("version"), {params.objective: best.value}, (_REPORT,), details)


TASK = Search()


def page(title: str, values: Sequence[float], params: Sequence[Mapping[str, Any]], best: int) -> str:
    """values, params: of finished trials, in order. best: the place of the best."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib.figure import Figure

    names = sorted({name for each in params for name in each})
    figure = Figure(figsize=(4 * (1 + len(names)), 4), layout="constrained")
    axes = figure.subplots(1, 1 + len(names), squeeze=False, sharey=True)[0]
    axes[0].plot(range(len(values)), values, "o")
    axes[0].set_xlabel("trial")
    for place, name in zip(axes[1:], names, strict=True):
        place.plot([_shown(each.get(name)) for each in params], values, "o")
        place.set_xlabel(name)
    for place in axes:
        place.axhline(values[best], color="grey", linewidth=0.5)
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    _, tag, body = drawn.getvalue().partition("<svg")
    rows = "".join(
        f"<tr><td>{number}</td><td>{value:.6g}</td><td>{html.escape(str(dict(each)))}</td></tr>"
        for number, (value, each) in enumerate(zip(values, params, strict=True))
    )
    head = f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title><h1>{html.escape(title)}</h1>"
    return f"{head}{tag}{body}<table><tr><th>trial</th><th>value</th><th>params</th></tr>{rows}</table>\n"


def _shown(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else str(value)
