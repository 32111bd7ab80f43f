"""Strokes: invented handwriting. A class is a fixed set of one to three cubic Bezier curves.

Each drawing wiggles the control points, places the figure anew and draws it with a pen of its own width and
softness. Of the four generators this is the one that serves characters and digits.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from .canvas import SIDE, Placement, integers, normal, pixel_grid, uniform

MOST_STROKES = 3
SAMPLES = 48  # points along a stroke: closer than a pixel and a half, or thin pens draw beads
FAR = 1e3  # where the strokes a class does not have are put


class Strokes:
    """Characters of `classes` classes, fixed by `generator`; `draw` writes one per label."""

    def __init__(self, classes: int, generator: Generator) -> None:
        self.classes = classes
        self.controls = uniform((classes, MOST_STROKES, 4, 2), -0.85, 0.85, generator)
        self.missing = torch.arange(MOST_STROKES) > integers(classes, MOST_STROKES, generator)[:, None]
        t = torch.linspace(0, 1, SAMPLES)[:, None]
        # Bernstein polynomials of degree 3, (SAMPLES, 4)
        self._basis = torch.cat([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], dim=1)
        self.controls = self._centred(self.controls)
        self._pixels = pixel_grid()

    def draw(
        self, labels: Tensor, placement: Placement, generator: Generator
    ) -> Tensor:  # (N, 32, 32) in [0, 1]
        count = len(labels)
        controls = self.controls[labels] + normal((count, MOST_STROKES, 4, 2), 0.07, generator)
        curves = self._basis @ controls  # (N, strokes, SAMPLES, 2)
        points = placement.place(curves.flatten(1, 2)).unflatten(1, (MOST_STROKES, SAMPLES))
        points = points.masked_fill(self.missing[labels][:, :, None, None], FAR).flatten(1, 2)
        # The direct form: the matrix form of cdist cancels badly next to the far-away points.
        distance = torch.cdist(
            self._pixels.expand(count, -1, -1), points, compute_mode="donot_use_mm_for_euclid_dist"
        )
        pen = uniform((count, 1), 0.05, 0.14, generator)
        softness = uniform((count, 1), 0.01, 0.05, generator)
        ink = torch.sigmoid((pen - distance.amin(dim=2)) / softness)
        return ink.reshape(count, SIDE, SIDE)

    def _centred(self, controls: Tensor) -> Tensor:
        """Move and scale every class so that its strokes fill the canvas; a short single stroke would be a speck."""
        curves = self._basis @ controls
        gone = self.missing[:, :, None, None]
        low = curves.masked_fill(gone, FAR).flatten(1, 2).amin(dim=1)
        high = curves.masked_fill(gone, -FAR).flatten(1, 2).amax(dim=1)
        half = ((high - low) / 2).amax(dim=1).clamp_min(0.2)
        return (controls - ((low + high) / 2)[:, None, None]) * (0.8 / half)[:, None, None, None]
