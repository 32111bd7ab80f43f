"""Classifiers to compare with: no gradient step trains any of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from peftx.errors import DataError
from peftx.tasks import ModelMethod, Task
from peftx_timeseries.config.classification import MajorityConfig, NearestConfig, RocketConfig
from peftx_timeseries.models.nearest import Nearest
from peftx_timeseries.models.ridge import fit_ridge
from peftx_timeseries.models.rocket import Rocket
from peftx_timeseries.tasks.samples import HasSamples, Samples, samples_of

__all__ = ["Majority", "NearestNeighbour", "RocketRidge"]

#: Samples whose features are made at a time.
FITTED = 128


class _Shares(nn.Module):
    """``(B, M, L) -> (B, C)``: the same logarithms of probabilities for every sample."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.log_share = nn.Parameter(torch.zeros(classes))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        return self.log_share.expand(len(x), -1)


class Majority(ModelMethod):
    """`timeseries.majority`: the most frequent class, with the share of each class as its probability, one sample of
    every class added so that none is impossible."""

    Config = MajorityConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        return _Shares(samples_of(task).classes)

    def fit(self, model: nn.Module, task: Task, config: Any) -> Mapping[str, Tensor]:
        """The logarithms of (n_c + 1) / (N + C)."""
        held, classes = _train(task), samples_of(task).classes
        counts = torch.bincount(held.y, minlength=classes).double() + 1
        return {"log_share": (counts / counts.sum()).log()}


class NearestNeighbour(ModelMethod):
    """`timeseries.nearest`: the class of the nearest training sample; see `peftx_timeseries.models.nearest`."""

    Config = NearestConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        shapes = samples_of(task)
        return Nearest(
            shapes.train, shapes.channels, shapes.length, shapes.classes, config.distance, config.window
        )

    def fit(self, model: nn.Module, task: Task, config: Any) -> Mapping[str, Tensor]:
        """The training samples. Raises DataError when there are more than the data set's card says."""
        held, shapes = _train(task), samples_of(task)
        spare = shapes.train - len(held)
        if spare < 0:
            raise DataError(
                f"there are {len(held)} samples to train on, and the data set says {shapes.train}"
            )
        return {
            "values": torch.cat([held.x, held.x.new_zeros(spare, *held.x.shape[1:])]),
            "lengths": torch.cat([held.ends.float(), torch.zeros(spare)]),
            "labels": torch.cat([held.y.float(), torch.full((spare,), -1.0)]),
        }


class RocketRidge(ModelMethod):
    """`timeseries.rocket`: ROCKET's features and the ridge classifier; see `peftx_timeseries.models.rocket` and
    `peftx_timeseries.models.ridge`."""

    Config = RocketConfig

    def build(self, task: Task, config: Any) -> nn.Module:
        shapes = samples_of(task)
        return Rocket(shapes.channels, shapes.length, shapes.classes, config.kernels, config.normalise)

    def fit(self, model: nn.Module, task: Task, config: Any) -> Mapping[str, Tensor]:
        """The values of the linear layer, on features as they come."""
        rocket, device = cast(Rocket, model), cast(Rocket, model).bias.device
        held = _train(task)
        made = []
        with torch.no_grad():
            for rows in torch.arange(len(held)).split(FITTED):
                features = rocket.features(held.x[rows].to(device), held.seen(rows).to(device))
                made.append(features.double().cpu())
        found = fit_ridge(torch.cat(made).numpy(), held.y.numpy(), samples_of(task).classes)
        return {
            "classifier.weight": torch.from_numpy(found.weight),
            "classifier.bias": torch.from_numpy(found.bias),
        }


def _train(task: Task) -> Samples:
    return cast(HasSamples, task).held("train")
