"""Rows with one fault each, named after the law that must find it, and sound ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from kit_rows_config import FAULTS, RowConfig, SilentRowConfig
from kit_toys_task import Sorting as Base
from torch import Tensor, nn

from peftx.errors import ConfigError, DataError
from peftx.tasks import ModelMethod

WIDTH = 8


class Sorting(Base):
    """The task that the rows are for."""


class Ranking(Base):
    """Another task of their domain."""


class Dreaming(Base):
    """A task without data."""


def classes_of(task: Any) -> int:
    if not isinstance(task, Sorting):
        raise ConfigError(f"{type(task).__name__} sorts nothing, so nothing can be compared there")
    return len(task.data.classes)


def points_of(split: Any) -> tuple[Tensor, Tensor]:
    """Points (n, 8) and classes (n,) of a split."""
    samples = list(split)
    return torch.tensor([point for point, _ in samples]), torch.tensor([label for _, label in samples])


class Nearest(nn.Module):
    """Logits are minus half the squared distance to each centre, up to what all classes share."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(classes, WIDTH))
        self.shift = 0.0

    def forward(self, points: Tensor) -> Tensor:
        return points @ self.centre.T - self.centre.square().sum(1) / 2 + self.shift * points.sum(1, True)


class Always(nn.Module):
    """The first class, whatever the point."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, points: Tensor) -> Tensor:
        return torch.eye(self.classes)[0].expand(len(points), -1)


class Perceptron(nn.Module):
    """Two layers; a fault may sit between them, or behind."""

    def __init__(self, classes: int, hidden: int, fault: str = "") -> None:
        super().__init__()
        self.fault, self.classes = fault, classes
        self.first, self.second = nn.Linear(WIDTH, hidden), nn.Linear(hidden, classes)
        if fault == "gradients":
            self.spare = nn.Parameter(torch.zeros(3))
        if fault == "steady_counts":
            self.register_buffer("calls", torch.zeros(()))
        if fault == "reload_buffer":
            self.register_buffer("level", torch.zeros(()), persistent=False)

    def forward(self, points: Tensor) -> Tensor:
        if self.fault == "own_answer":
            points = points - points.mean(0)
        y = self.second(self.first(points).tanh())
        match self.fault:
            case "answers":
                y = torch.where(y == y.max(), y / 0, y)
            case "answers_shape":
                y = y[:, 0]
            case "steady":
                y = nn.functional.dropout(y, 0.5, training=True)
            case "steady_counts":
                self.calls += 1
            case "gradients_zero":
                y = y * 0
            case "learns":
                y = 2 * y.detach() - y
            case "reload_buffer":
                if self.training:
                    self.level += 1
                y = y * (1 + 0.01 * self.level)
        return y


class Lines(ModelMethod):
    """A small network."""

    Config = RowConfig
    fault = ""

    def build(self, task: Any, config: Any) -> nn.Module:
        return Perceptron(classes_of(task), config.hidden, self.fault)


class Normed(Lines):
    """A small network that keeps running statistics."""

    def build(self, task: Any, config: Any) -> nn.Module:
        network = Perceptron(classes_of(task), config.hidden)
        return nn.Sequential(nn.BatchNorm1d(WIDTH), network, nn.Dropout(0.1))


class Asleep(Lines):
    """A row for a task without data."""


class Means(ModelMethod):
    """The mean of each class."""

    Config = RowConfig
    fault = ""

    def build(self, task: Any, config: Any) -> nn.Module:
        return Nearest(classes_of(task))

    def points(self, task: Any) -> tuple[Tensor, Tensor]:
        return points_of(task.data.splits["train"])

    def fit(self, model: nn.Module, task: Any, config: Any) -> Mapping[str, Tensor]:
        points, labels = self.points(task)
        found = torch.stack([points[labels == label].mean(0) for label in range(len(task.data.classes))])
        return {"centre": found}


class First(ModelMethod):
    """One class for all."""

    Config = RowConfig
    fault = ""

    def build(self, task: Any, config: Any) -> nn.Module:
        return Always(classes_of(task))


class _Careless(Lines):
    """Asks for no more than what its own task has."""

    def build(self, task: Any, config: Any) -> nn.Module:
        if isinstance(task, Ranking):
            raise ConfigError("nothing is ranked")
        return Perceptron(len(task.data.classes) + 0 * len(task.held), config.hidden)


class _Wordy(Lines):
    def build(self, task: Any, config: Any) -> nn.Module:
        if not isinstance(task, Sorting):
            raise ConfigError("not here\nand not there")
        return super().build(task, config)


class _Nowhere(Lines):
    def build(self, task: Any, config: Any) -> nn.Module:
        raise ConfigError("this row is for no task at all")


class _Unseeded(Lines):
    def build(self, task: Any, config: Any) -> nn.Module:
        model = Perceptron(classes_of(task), config.hidden)
        own = torch.Generator().manual_seed(int.from_bytes(os.urandom(6), "little"))
        with torch.no_grad():
            model.first.bias.copy_(torch.rand(config.hidden, generator=own))
        return model


class _Shared(Lines):
    def build(self, task: Any, config: Any) -> nn.Module:
        _ONE.setdefault("model", Perceptron(classes_of(task), config.hidden))
        return _ONE["model"]


_ONE: dict[str, nn.Module] = {}


class _Counting(Lines):
    """As wide as the samples are many."""

    def build(self, task: Any, config: Any) -> nn.Module:
        model = Perceptron(classes_of(task), config.hidden)
        with torch.no_grad():
            model.first.bias.add_(len(task.data.splits["train"]) / 100)
        return model


class _Peeking(Lines):
    """Looks at a sample for its width."""

    def build(self, task: Any, config: Any) -> nn.Module:
        classes = classes_of(task)
        point, _ = task.data.splits["train"][0]
        return Perceptron(classes, config.hidden + 0 * len(point))


class _Unfitted(Means):
    fit = ModelMethod.fit


class _FitFault(Means):
    def fit(self, model: nn.Module, task: Any, config: Any) -> Mapping[str, Tensor]:
        found = dict(super().fit(model, task, config))
        match self.fault:
            case "fit":
                return {}
            case "fit_nan":
                found["centre"][0, 0] = float("nan")
            case "fit_foreign":
                found["scale"] = torch.ones(1)
            case "fit_draws":
                own = torch.Generator().manual_seed(int.from_bytes(os.urandom(6), "little"))
                found["centre"] += torch.rand(found["centre"].shape, generator=own)
            case "reload":
                model.shift = 0.5
        return found


class _AllSplits(Means):
    """More data, better means."""

    def points(self, task: Any) -> tuple[Tensor, Tensor]:
        found = [points_of(task.data.splits[split]) for split in ("train", "val")]
        return torch.cat([points for points, _ in found]), torch.cat([labels for _, labels in found])


class _Chooses(Means):
    """Reads the test split to choose between two things, and chooses the same on any."""

    def points(self, task: Any) -> tuple[Tensor, Tensor]:
        if not len(task.data.splits["test"]):
            raise DataError("there is nothing to choose by")
        return super().points(task)


class _Beside(Means):
    """Reads what the training split keeps beside its samples."""

    def points(self, task: Any) -> tuple[Tensor, Tensor]:
        points, labels = super().points(task)
        return points + len(getattr(task.data.splits["train"], "beside", ())), labels


_SPECIAL: dict[str, type[ModelMethod]] = {
    "fits": _Careless,
    "fits_wordy": _Wordy,
    "fits_nowhere": _Nowhere,
    "built": _Unseeded,
    "built_shared": _Shared,
    "without_samples": _Counting,
    "without_samples_refused": _Peeking,
    "trained": Means,
    "trained_empty": First,
    "trained_unfitted": _Unfitted,
    "training_split": _AllSplits,
    "training_split_chooses": _Chooses,
    "training_split_beside": _Beside,
}
for _fault, _trained in FAULTS.items():
    _base = _SPECIAL.get(_fault, Lines if _trained else _FitFault)
    _config = SilentRowConfig if _fault == "row_config" else RowConfig
    globals()[f"Bad_{_fault}"] = type(f"Bad_{_fault}", (_base,), {"fault": _fault, "Config": _config})
