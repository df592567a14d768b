"""Which model is where: one serves under a label, one may load beside it to take its place, others are on their way out."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.pool.capacity import Resident
from runtime.pool.ledger import resident
from runtime.pool.resident_model import ResidentModel


class PresentModels:
    """Only this changes the three; what a model does meanwhile is its own matter."""

    def __init__(self) -> None:
        self._models: dict[str, ResidentModel] = {}
        self._arriving: dict[str, ResidentModel] = {}
        self._leaving: list[ResidentModel] = []

    def __iter__(self) -> Iterator[ResidentModel]:
        """All whose memory counts; while a model is replaced, both."""
        return iter((*self._models.values(), *self._arriving.values(), *self._leaving))

    @property
    def serving(self) -> tuple[ResidentModel, ...]:
        """Those that requests get, loaded or about to be."""
        return tuple(self._models.values())

    @property
    def leaving(self) -> tuple[ResidentModel, ...]:
        return tuple(self._leaving)

    def find(self, label: str) -> ResidentModel | None:
        """The one that requests for this label get."""
        return self._models.get(label)

    def of(self, label: str) -> list[ResidentModel]:
        """The one that serves and the one that is to take its place, as far as there are any."""
        return [each for each in (self._models.get(label), self._arriving.get(label)) if each is not None]

    def serves(self, model: ResidentModel) -> bool:
        return self._models.get(model.label) is model

    def arrives(self, model: ResidentModel) -> bool:
        """Whether it still waits to take the place of another."""
        return self._arriving.get(model.label) is model

    def is_arriving(self, label: str) -> bool:
        return label in self._arriving

    def add(self, model: ResidentModel, *, beside: bool) -> None:
        """beside: it will take the place of the one that serves."""
        (self._arriving if beside else self._models)[model.label] = model

    def remove(self, model: ResidentModel) -> None:
        """Requests do not get it any more. What was to take its place takes it at once."""
        label = model.label
        if self.arrives(model):
            del self._arriving[label]
        elif self.serves(model):
            del self._models[label]
            if label in self._arriving:
                self._models[label] = self._arriving.pop(label)

    def begin_leaving(self, model: ResidentModel) -> None:
        """It is removed, and its memory counts until `end_leaving`."""
        self.remove(model)
        self._leaving.append(model)

    def end_leaving(self, model: ResidentModel) -> None:
        self._leaving.remove(model)

    def residents(self, *, without: ResidentModel | None = None) -> list[Resident]:
        """What `capacity` has to know of them."""
        staying = [resident(model) for model in (*self._models.values(), *self._leaving) if model is not without]
        return staying + [resident(model, is_arriving=True) for model in self._arriving.values()]
