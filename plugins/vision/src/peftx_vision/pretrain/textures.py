"""Textures: patterns that fill a figure or the ground behind it. A class is a pair of gratings and a palette.

Two plane waves are combined in one of four ways (sum, product, larger, hard stripes) and mixed between two colours.
Texture and colour are what the natural-image probe rewards; figures alone teach neither.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from .canvas import SIDE, integers, normal, pixel_grid, uniform

WAYS = 4


class Textures:
    """Patterns of `classes` classes, fixed by `generator`; `draw` paints one per label."""

    def __init__(self, classes: int, generator: Generator) -> None:
        self.classes = classes
        angle = uniform((classes, 2), 0, math.pi, generator)
        cycles = uniform((classes, 2), 1.5, 7.0, generator)  # over the width of the canvas
        self.waves = (
            torch.stack([angle.cos(), angle.sin()], -1) * (math.pi * cycles)[..., None]
        )  # (classes, 2, 2)
        self.way = integers(classes, WAYS, generator)
        self.palette = torch.rand((classes, 2, 3), generator=generator)
        self._pixels = pixel_grid()

    def draw(self, labels: Tensor, generator: Generator) -> Tensor:  # (N, 3, 32, 32) in [0, 1]
        count = len(labels)
        turn = normal((count,), 0.12, generator)
        zoom = uniform((count,), 0.85, 1.18, generator)
        cos, sin = turn.cos() * zoom, turn.sin() * zoom
        rotation = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
        waves = self.waves[labels] @ rotation.mT
        phase = uniform((count, 1, 2), 0, 2 * math.pi, generator)
        first, second = (self._pixels @ waves.mT + phase).cos().unbind(dim=-1)  # (N, pixels) each
        ways = torch.stack(
            [(first + second) / 2, first * second, torch.maximum(first, second), (4 * first).tanh()]
        )
        pattern = (ways[self.way[labels], torch.arange(count)] + 1) / 2
        palette = self.palette[labels] + normal((count, 2, 3), 0.1, generator)
        low, high = palette[:, 0, :, None], palette[:, 1, :, None]
        return (low + (high - low) * pattern[:, None]).clamp(0, 1).reshape(count, 3, SIDE, SIDE)
