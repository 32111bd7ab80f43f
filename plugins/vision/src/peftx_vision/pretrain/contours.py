"""Contours: filled blobs. A class is an outline r(angle), a short Fourier series around the centre.

    r(a) = r0 (1 + sum_k  A_k cos(k a) + B_k sin(k a)),   k = 1 .. 6

These are the compact, filled figures that strokes never show: silhouettes with lobes, corners and necks.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from .canvas import SIDE, Placement, normal, pixel_grid, uniform

HARMONICS = 6
RADIUS = 0.62


class Contours:
    """Outlines of `classes` classes, fixed by `generator`; `draw` fills one per label."""

    def __init__(self, classes: int, generator: Generator) -> None:
        self.classes = classes
        k = torch.arange(1, HARMONICS + 1, dtype=torch.float32)
        # Lower harmonics are larger, or every class would be a rough circle with a frill.
        self.series = normal((classes, 2, HARMONICS), 0.35, generator) / k.sqrt()
        self._k = k
        self._pixels = pixel_grid()

    def draw(
        self, labels: Tensor, placement: Placement, generator: Generator
    ) -> Tensor:  # (N, 32, 32) in [0, 1]
        count = len(labels)
        series = self.series[labels] + normal((count, 2, HARMONICS), 0.04, generator)
        xy = placement.undo(self._pixels)  # (N, pixels, 2)
        angle = torch.atan2(xy[..., 1], xy[..., 0])[..., None] * self._k  # (N, pixels, HARMONICS)
        wave = (angle.cos() * series[:, None, 0] + angle.sin() * series[:, None, 1]).sum(dim=-1)
        outline = RADIUS * (1 + wave).clamp(0.15, 1.9)
        softness = uniform((count, 1), 0.02, 0.06, generator)
        return torch.sigmoid((outline - xy.norm(dim=-1)) / softness).reshape(count, SIDE, SIDE)
