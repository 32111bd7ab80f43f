"""The parts of the toy pack that need torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import toypack_kill
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from peftx.data import Dataset, Split
from peftx.errors import DataError
from peftx.evaluation import ClassificationMeter
from peftx.tasks import Task

FEATURES = 8


class Points(Split[Any]):
    """Points (N, 8) and their classes."""

    def __init__(self, points: Tensor, classes: Tensor) -> None:
        self.points, self.classes = points, classes

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.points[index], int(self.classes[index])

    @property
    def labels(self) -> Sequence[int]:
        return self.classes.tolist()


def load_points(config: Any, ctx: Any) -> Dataset:
    """Draw points around centres; always the same ones."""
    draw = torch.Generator().manual_seed(7)
    centres = torch.randn(config.classes, FEATURES, generator=draw) * 2
    splits = {}
    for name, count in (("train", 90), ("val", 30), ("test", 33))[: 3 if config.test else 2]:
        classes = torch.arange(count) % config.classes
        noise = torch.randn(count, FEATURES, generator=draw) * config.spread
        splits[name] = Points(centres[classes] + noise, classes)
    return Dataset(
        name="toy.points",
        splits=splits,
        classes=tuple(f"c{i}" for i in range(config.classes)),
        fingerprint=hashlib.sha256(splits["train"].points.numpy().tobytes()).hexdigest(),
        card={"synthetic": True},
    )


def load_file(config: Any, ctx: Any) -> Dataset:
    """Never called: the tests only resolve its name."""
    raise AssertionError(config)


class Net(nn.Module):
    """Linear, tanh, ..., head; `unused` adds a layer no forward calls."""

    def __init__(
        self, outputs: int, width: int = 16, depth: int = 1, unused: bool = False, batch_norm: bool = False
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(FEATURES, width)
        self.deep = nn.ModuleList(nn.Linear(width, width) for _ in range(depth - 1))
        self.norm = nn.BatchNorm1d(width) if batch_norm else nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        if unused:
            self.unused = nn.Linear(width, width)
        self.peftx_head = "head"

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x).tanh()
        for layer in self.deep:
            x = layer(x).tanh()
        return self.head(self.norm(x))


def build_net(config: Any, outputs: int | None) -> nn.Module:
    """Build the network of the registry."""
    return Net(outputs or 2, config.width, config.depth, config.unused, config.batch_norm)


class PointBatches:
    """Batches of points."""

    def __init__(self, split: Points, size: int, generator: torch.Generator | None) -> None:
        self.split, self.size, self.generator = split, size, generator

    def __len__(self) -> int:
        return -(-len(self.split) // self.size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        count = len(self.split)
        order = torch.arange(count)
        if self.generator is not None:
            order = torch.randperm(count, generator=self.generator)
        for rows in order.split(self.size):
            yield {"points": self.split.points[rows], "labels": self.split.classes[rows]}


class Sorting(Task):
    """Classification of points."""

    primary = "accuracy"
    units = {"accuracy": "%"}  # noqa: RUF012

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        toypack_kill.lay()
        self.losses = 0
        self.prepared: list[str] = []

    def prepare(self, splits: Sequence[str]) -> None:
        self.prepared = list(splits)

    def build_model(self) -> nn.Module:
        if toypack_kill.at("start"):
            toypack_kill.die()
        if self.model.build is None:
            return Net(len(self.data.classes))
        return self.model.build(len(self.data.classes))

    def batches(
        self, split: str, batch_size: int, *, train: bool = False, generator: Any = None
    ) -> PointBatches:
        return PointBatches(self.data.splits[split], batch_size, generator if train else None)

    def forward(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        if not model.training and toypack_kill.at("score"):
            toypack_kill.die()
        return model(batch["points"])

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        loss = cross_entropy(self.forward(model, batch), batch["labels"])
        if toypack_kill.at("step"):
            toypack_kill.die()
        self.losses += 1
        return loss * float("nan") if self.losses == getattr(self.config, "explode_at", 0) else loss

    def meter(self) -> ClassificationMeter:
        return ClassificationMeter(len(self.data.classes))

    def recipe(self, method: str) -> dict[str, Any]:
        return {"lr": {"core.full": 1e-2, "core.head": 1e-1}.get(method, 2e-2), "batch_size": 16, "epochs": 5}

    def predict(
        self, model: nn.Module, inputs: Sequence[Path], *, top: int = 5, device: torch.device | str = "cpu"
    ) -> list[dict[str, Any]]:
        found = []
        for path in inputs:
            try:
                words = Path(path).read_text().split(self.predict_options.data.separator)
                point = torch.tensor([float(word) for word in words]) * self.predict_options.scale
            except (OSError, ValueError) as error:
                raise DataError(f"cannot read the point {path}: {error}") from error
            order = model(point[None].to(device))[0].argsort(descending=True)
            classes = [self.data.classes[int(one)] for one in order]
            if self.predict_options.runners_up:
                answers = [{"class": name} for name in classes]
                found.append({"path": str(path), "answers": answers, "notes": ["all classes"]})
            else:
                found.append({"path": str(path), "class": classes[0]})
        return found

    def calibrate(self, model: nn.Module, splits: Sequence[str], **where: Any) -> dict[str, Any]:
        return {"splits": list(splits)}
