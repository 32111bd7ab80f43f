"""Fractals: dust with structure. A class is an iterated function system of two to four affine maps.

The chaos game is played by many particles at once for a few turns, because a batch of short games is cheap in
tensor code where one long game is not. Fractals bring detail at every scale, which strokes and blobs lack.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d

from .canvas import SIDE, Placement, integers, normal, uniform

MOST_MAPS = 4
PARTICLES = 160
TURNS = 14
KEPT_TURNS = 8  # the first turns still remember where the particles started


class Fractals:
    """Function systems of `classes` classes, fixed by `generator`; `draw` plays one game per label."""

    def __init__(self, classes: int, generator: Generator) -> None:
        self.classes = classes
        shape = (classes, MOST_MAPS)
        turn = uniform(shape, -math.pi, math.pi, generator)
        scale = uniform((*shape, 2), 0.3, 0.7, generator)
        rotation = torch.stack(
            [torch.stack([turn.cos(), -turn.sin()], -1), torch.stack([turn.sin(), turn.cos()], -1)], -2
        )
        self.matrices = rotation * scale[..., None, :]  # (classes, maps, 2, 2)
        self.shifts = uniform((*shape, 2), -0.8, 0.8, generator)
        self.maps = integers(classes, MOST_MAPS - 1, generator) + 2
        # A fixed frame per class: its attractor must fill the canvas before it is placed anywhere.
        points = self._play(torch.arange(classes), self.matrices, self.shifts, generator)
        low, high = points.quantile(0.02, dim=1), points.quantile(0.98, dim=1)
        self._centre = (low + high) / 2
        self._half = ((high - low) / 2).amax(dim=1).clamp_min(0.1)

    def draw(
        self, labels: Tensor, placement: Placement, generator: Generator
    ) -> Tensor:  # (N, 32, 32) in [0, 1]
        count = len(labels)
        shifts = self.shifts[labels] + normal((count, MOST_MAPS, 2), 0.03, generator)
        points = self._play(labels, self.matrices[labels], shifts, generator)
        framed = (points - self._centre[labels][:, None]) * (0.85 / self._half[labels])[:, None, None]
        cell = ((placement.place(framed) + 1) * (SIDE / 2)).floor().long()
        inside = ((cell >= 0) & (cell < SIDE)).all(dim=-1)
        index = (cell[..., 1] * SIDE + cell[..., 0]).clamp(0, SIDE * SIDE - 1)
        hits = torch.zeros(count, SIDE * SIDE).scatter_add_(1, index, inside.float())
        hits = hits.reshape(count, 1, SIDE, SIDE)
        # A little of the neighbourhood closes the holes a short game leaves.
        hits = hits + avg_pool2d(hits, 3, stride=1, padding=1)
        return 1 - torch.exp(-hits[:, 0])

    def _play(self, labels: Tensor, matrices: Tensor, shifts: Tensor, generator: Generator) -> Tensor:
        """Points on the attractors, (N, PARTICLES * KEPT_TURNS, 2)."""
        count = len(labels)
        rows = torch.arange(count)[:, None]
        point = uniform((count, PARTICLES, 2), -1, 1, generator)
        kept = []
        for turn in range(TURNS):
            draw = torch.rand((count, PARTICLES), generator=generator)
            choice = (draw * self.maps[labels][:, None]).long()
            point = (matrices[rows, choice] @ point[..., None])[..., 0] + shifts[rows, choice]
            if turn >= TURNS - KEPT_TURNS:
                kept.append(point)
        return torch.cat(kept, dim=1)
