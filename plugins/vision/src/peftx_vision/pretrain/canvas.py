"""Coordinates, random placements and random numbers shared by the image generators.

The canvas is the square [-1, 1] x [-1, 1], x to the right and y down, whatever the number of pixels. Every random
number of the package comes from the one `torch.Generator` handed in, so that a seed fixes every image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

SIDE = 32  # pixels


def pixel_grid(side: int = SIDE) -> Tensor:  # (side * side, 2)
    """Centres of the pixels in canvas coordinates, row by row."""
    centres = (torch.arange(side) + 0.5) * (2.0 / side) - 1.0
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2)


def uniform(shape: tuple[int, ...], low: float, high: float, generator: Generator) -> Tensor:
    """Numbers between `low` and `high`."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def normal(shape: tuple[int, ...], scale: float, generator: Generator) -> Tensor:
    """Numbers of mean 0 and standard deviation `scale`."""
    return torch.randn(shape, generator=generator) * scale


def integers(count: int, below: int, generator: Generator) -> Tensor:  # (count,)
    """Numbers from 0 to `below` - 1."""
    return torch.randint(below, (count,), generator=generator)


@dataclass(frozen=True)
class Placement:
    """One affine map per image: x -> matrix x + shift, from the drawing's own coordinates to the canvas."""

    matrix: Tensor  # (N, 2, 2)
    shift: Tensor  # (N, 2)

    def place(self, points: Tensor) -> Tensor:  # (N, P, 2) -> (N, P, 2)
        return points @ self.matrix.mT + self.shift[:, None]

    def undo(self, points: Tensor) -> Tensor:  # (P, 2) -> (N, P, 2)
        """Canvas points seen from inside the drawing: how closed forms are evaluated at pixels."""
        return (points[None] - self.shift[:, None]) @ torch.linalg.inv(self.matrix).mT


def random_placements(count: int, generator: Generator) -> Placement:
    """Turn by up to 30 degrees, shear, stretch and shift. Never mirror: b and d are different things."""
    angle = uniform((count,), -math.pi / 6, math.pi / 6, generator)
    shear = uniform((count,), -0.25, 0.25, generator)
    size = uniform((count,), 0.6, 1.1, generator)
    stretch = uniform((count,), 0.8, 1.25, generator).sqrt()
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    zero = torch.zeros(count)
    skew = torch.stack(
        [torch.stack([size * stretch, shear], -1), torch.stack([zero, size / stretch], -1)], -2
    )
    return Placement(matrix=turn @ skew, shift=uniform((count, 2), -0.25, 0.25, generator))
