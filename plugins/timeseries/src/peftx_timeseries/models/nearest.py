"""The nearest neighbour: its state is the training set."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from peftx_timeseries.models.distances import dtw, euclidean

__all__ = ["Nearest"]


class Nearest(nn.Module):
    """``(B, M, L) -> (B, C)``: minus the distance to the nearest training sample of each class.

    Its parameters are the training samples, padded with 0, their lengths and their classes, both whole numbers in
    floating point so that they are stored like all else; a class of -1 stands for a place without a sample. Distances
    are those of `peftx_timeseries.models.distances`, in float64 where the device has it, over M times the steps of the
    input; a class without a sample is farther away than all others. Only their order means anything: they are no
    logarithms of probabilities.
    """

    def __init__(
        self,
        samples: int,
        channels: int,
        length: int,
        classes: int,
        distance: Literal["euclidean", "dtw"] = "euclidean",
        window: float = 0.1,
    ) -> None:
        super().__init__()
        self.classes, self.distance, self.window = classes, distance, window
        self.values = nn.Parameter(torch.zeros(samples, channels, length))
        self.lengths = nn.Parameter(torch.zeros(samples))
        self.labels = nn.Parameter(torch.full((samples,), -1.0))

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the negative distances; `seen` as `SeriesClassifier.forward` has it."""
        exact = torch.float32 if x.device.type == "mps" else torch.float64
        labels = self.labels.round().long()
        held = (labels >= 0).nonzero()[:, 0]
        if seen is not None:
            x = torch.where(seen[:, None] > 0, x, 0.0)
        given, known = x.to(exact), self.values[held].to(exact)
        if self.distance == "dtw":
            ends = x.new_full((len(x),), x.shape[2]) if seen is None else seen.sum(1)
            found = dtw(given, known, ends, self.lengths[held].round(), self.window)
        else:
            found = euclidean(given, known)
        found = found / (x.shape[1] * x.shape[2])
        nearest = found.new_full((len(x), self.classes), math.inf)
        nearest = nearest.scatter_reduce(1, labels[held].expand(len(x), -1), found, "amin")
        farthest = torch.where(nearest.isfinite(), nearest, 0.0).amax(1, keepdim=True) + 1
        return -torch.where(nearest.isfinite(), nearest, farthest).to(x.dtype)
