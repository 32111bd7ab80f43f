"""Rows to compare with: a small network that is trained, class means in closed form, and one without parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from toypack_plugin import LinesConfig
from toypack_task import FEATURES

from peftx.tasks import ModelMethod, Task


class Lines(ModelMethod):
    Config = LinesConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        return nn.Sequential(
            nn.Linear(FEATURES, config.hidden), nn.Tanh(), nn.Linear(config.hidden, len(task.data.classes))
        )


class Nearest(nn.Module):
    """Logits are minus half the squared distance to each centre, up to what all classes share."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.zeros(classes, FEATURES))

    def forward(self, points: Tensor) -> Tensor:
        return points @ self.centre.T - self.centre.square().sum(1) / 2


class Means(ModelMethod):
    Config = LinesConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        return Nearest(len(task.data.classes))

    def fit(self, model: nn.Module, task: Task, config: Any) -> Mapping[str, Tensor]:
        split: Any = task.data.splits["train"]
        return {
            "centre": torch.stack(
                [split.points[split.classes == label].mean(0) for label in range(len(task.data.classes))]
            )
        }


class Forgetful(Means):
    def fit(self, model: nn.Module, task: Task, config: Any) -> Mapping[str, Tensor]:
        return {}


class Always(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, points: Tensor) -> Tensor:
        return torch.eye(self.classes)[0].expand(len(points), -1)


class First(ModelMethod):
    """The first class, whatever the point."""

    Config = LinesConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        return Always(len(task.data.classes))
