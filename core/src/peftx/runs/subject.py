"""What a row trains and scores: the task's base model with an adapter on it, or a model of the row's own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peftx.adapters import Adapted, attach
from peftx.adapters.explanation import Counts
from peftx.adapters.explanation import explain as explain_adapter
from peftx.errors import RunError
from peftx.plugins.descriptors import MethodSpec
from peftx.plugins.registry import Entry
from peftx.runs.planning import Row
from peftx.tasks.contract import Task
from peftx.tasks.models import ModelMethod
from peftx.training.engine import Fit
from peftx.training.seeds import seed_all

__all__ = ["Subject", "base_of", "counts_of", "fitted", "make"]

#: What is trained of a row's own model: all of it, so that saving, averaging and going on are those of any adapter.
WHOLE = "core.full"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and the handle of what is trained of it; None where it has no parameter."""

    model: nn.Module
    adapted: Adapted | None

    def counts(self) -> Counts:
        """Values that are trained and stored."""
        return self.adapted.counts() if self.adapted is not None else Counts(0, 0, 0, 0, 0, 0)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the parameters and buffers that have to be there for a forward: those of the base model and of the
        adapter, without the base's copies of what the adapter owns."""
        named = dict([*self.model.named_parameters(), *self.model.named_buffers()])
        owned = () if self.adapted is None else self.adapted.attachment().owned
        # a block of rows of a parameter leaves the rest of it in use
        replaced = {f"{site.module}.{site.weight}".removeprefix(".") for site in owned if site.rows is None}
        return sum(tensor.nbytes for name, tensor in named.items() if name not in replaced)


def base_of(method: Entry[MethodSpec], config: Any, task: Task, seed: int) -> nn.Module:
    """A new model as a row with this method begins with it, without its adapter: the same bits for the same seed."""
    seed_all(seed, "model")
    return _method(method).build(task, config) if method.spec.kind == "model" else task.build_model()


def make(row: Row, task: Task, seed: int) -> Subject:
    """A new model and what is to be trained of it.

    Raises:
        as `peftx.attach`.
    """
    model = base_of(row.method, row.config, task, seed)
    seed_all(seed, "adapter")
    if row.method.spec.kind != "model":
        return Subject(model, attach(model, row.method.name, config=row.config))
    whole = next(model.parameters(), None) is not None
    return Subject(model, attach(model, WHOLE) if whole else None)


def counts_of(method: Entry[MethodSpec], config: Any, task: Task, base: nn.Module | None) -> Counts:
    """Values that a method would train and store, by closed formula; `base` is the task's model, where there is one.

    Raises:
        as `peftx.attach`.
    """
    if method.spec.kind != "model":
        assert base is not None
        return explain_adapter(base, method.name, config=config).counts
    model = base_of(method, config, task, 0)
    if next(model.parameters(), None) is None:
        return Counts(0, 0, 0, 0, 0, 0)
    return explain_adapter(model, WHOLE).counts


def fitted(row: Row, task: Task, subject: Subject, device: torch.device) -> Fit:
    """Give a model that no gradient step trains its values, and leave it ready to be scored.

    Raises:
        RunError: the method forgot a parameter, or its value is of another shape.
    """
    started = time.perf_counter()
    subject.model.to(device)
    if subject.adapted is not None:
        _fill(row, subject.adapted, _method(row.method).fit(subject.model, task, row.config))
    subject.model.eval()
    return Fit(selected_on="closed form", seconds=time.perf_counter() - started, optimizer_bytes=0)


def _fill(row: Row, adapted: Adapted, values: Mapping[str, Tensor]) -> None:
    held = {site: tensor for (site, _), tensor in adapted.tensors().items()}
    if held.keys() != values.keys():
        odd = sorted(held.keys() ^ values.keys())[0]
        what = "gave no value for" if odd in held else "gave a value for the unknown"
        raise RunError(f"{row.method.name} {what} parameter {odd}: fit returns one for each")
    with torch.no_grad():
        for name, tensor in held.items():
            value = values[name]
            if value.shape != tensor.shape:
                raise RunError(
                    f"{row.method.name} fitted {name} of shape {tuple(value.shape)}, and the parameter's is "
                    f"{tuple(tensor.shape)}"
                )
            tensor.copy_(value)


def _method(entry: Entry[MethodSpec]) -> ModelMethod:
    method: ModelMethod = entry.load()()
    return method
