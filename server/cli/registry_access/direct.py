"""Registry commands on a home of this machine, without a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from model_registry.catalog import load_catalog
from model_registry.description import describe_alias, describe_catalog, describe_model, describe_version
from model_registry.name_matching import same_label
from model_registry.names import parse_label
from model_registry.progress import Progress
from model_registry.records import Precision
from server.cli.failures import MISUSED, CommandFailed
from server.cli.registry_access.commands import Json, PullOrder

if TYPE_CHECKING:
    from model_registry.registry import Registry


class DirectRegistry:
    """offline: whether nothing may be downloaded."""

    def __init__(self, registry: Registry, *, offline: bool = False) -> None:
        self._registry = registry
        self._offline = offline

    @property
    def home(self) -> str:
        return str(self._registry.home)

    def models(self) -> list[Json]:
        return [dict(describe_model(model)) for model in self._registry.models()]

    def show(self, label: str) -> Json:
        known = self._known(label)
        if parse_label(known).is_bare:
            return dict(describe_model(self._registry.model(known)))
        return dict(describe_version(self._registry.resolve(known)))

    def remove(self, label: str, *, force: bool = False) -> Json:
        known = self._known(label)
        if parse_label(known).is_bare:
            labels = [version.label for version in self._registry.model(known).versions]
        else:
            labels = [self._registry.resolve(known).label]
        return {"removed": labels, "freed_bytes": self._registry.remove(known, force=force)}

    def set_alias(self, label: str, alias: str) -> Json:
        version = self._registry.resolve(self._known(label))
        made = self._registry.set_alias(version.model, alias, version.number)
        return dict(describe_alias(made))

    def remove_alias(self, model: str, alias: str) -> Json:
        gone = self._registry.remove_alias(self._known(model), alias)
        return {"id": f"{gone.model}:{gone.name}", "deleted": True}

    def verify(self, label: str) -> Json:
        version = self._registry.resolve(self._known(label))
        problems = [{"path": each.path, "message": each.message} for each in self._registry.verify(version.label)]
        return {"version": version.label, "problems": problems}

    def collect_garbage(self) -> int:
        return self._registry.collect_garbage()

    def lineage(self, label: str) -> Json:
        from model_registry.lineage import lineage_of
        from server.admin.evaluations import lineage_body

        version = self._registry.resolve(self._known(label))
        return lineage_body(lineage_of(self._registry.models(), version), version.label).model_dump()

    def catalog(self) -> list[Json]:
        return [dict(each) for each in describe_catalog(load_catalog(), self._registry.models())]

    def pull(self, order: PullOrder, progress: Progress) -> Json:
        from model_registry.pull import PullOptions, pull
        from model_registry.references import PathReference, parse_reference
        from runtime.trial import try_folder

        if self._offline and not isinstance(parse_reference(order.reference), PathReference):
            raise CommandFailed("`offline` is set, so nothing is downloaded; pull a path, or unset SLMOPS_OFFLINE")
        options = PullOptions(trial=try_folder if order.trial else None)
        precision = Precision(order.precision)
        version = pull(self._registry, order.reference, name=order.name, precision=precision, progress=progress, options=options)
        return dict(describe_version(version))

    def start_pull(self, order: PullOrder) -> str:
        raise CommandFailed("only a daemon pulls in the background; start one with `slmops serve`, or leave out --detach", MISUSED)

    def _known(self, label: str) -> str:
        return same_label(label, [model.name for model in self._registry.models()])
