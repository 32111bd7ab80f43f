"""Dead leaves: a ground of overlapping discs, large ones rare and small ones common.

Occlusion and a power law of sizes give the edges and the spectrum of photographs (Baradad et al., "Learning to See
by Looking at Noise", 2021) without a single photograph. No labels: the leaves are what figures stand on.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from .canvas import SIDE, normal, pixel_grid, uniform

LEAVES = 24
SMALLEST, LARGEST = 0.1, 1.2  # radii


def dead_leaves(count: int, generator: Generator) -> Tensor:  # (N, 3, 32, 32)
    """Leaves fall one after another, each a flat or shaded ellipse in a colour of the image's own range."""
    pixels = pixel_grid()
    # Radii with density r^-3, by inversion.
    chance = torch.rand((count, LEAVES), generator=generator)
    radius = (SMALLEST**-2 - chance * (SMALLEST**-2 - LARGEST**-2)).rsqrt()
    # The largest first: what falls last stays visible.
    radius = radius.sort(dim=1, descending=True).values
    centre = uniform((count, LEAVES, 2), -1.1, 1.1, generator)
    stretch = uniform((count, LEAVES), -0.5, 0.5, generator).exp()
    angle = uniform((count, LEAVES), 0, torch.pi, generator)
    colour = muted_colours(count, LEAVES + 1, generator)
    slope = normal((count, LEAVES + 1, 1, 2), 0.12, generator)
    image = colour[:, 0, :, None] + (slope[:, 0] @ pixels.T)
    for leaf in range(LEAVES):
        offset = pixels[None] - centre[:, leaf, None]
        cos, sin = angle[:, leaf, None].cos(), angle[:, leaf, None].sin()
        u = (offset[..., 0] * cos + offset[..., 1] * sin) * stretch[:, leaf, None]
        v = (offset[..., 1] * cos - offset[..., 0] * sin) / stretch[:, leaf, None]
        cover = torch.sigmoid((radius[:, leaf, None] - (u.square() + v.square()).sqrt()) / 0.02)[:, None]
        shade = colour[:, leaf + 1, :, None] + (slope[:, leaf + 1] @ offset.mT)
        image = image + (shade - image) * cover
    return image.reshape(count, 3, SIDE, SIDE)


def muted_colours(count: int, each: int, generator: Generator) -> Tensor:  # (count, each, 3)
    """Brightness differs most, hue little and around a tint the image shares: the statistics of photographs."""
    tint = normal((count, 1, 3), 0.1, generator)
    brightness = uniform((count, each, 1), 0.05, 0.95, generator)
    return (brightness + tint + normal((count, each, 3), 0.08, generator)).clamp(0, 1)
