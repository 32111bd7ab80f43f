"""The composed training batch: a figure on a ground, with everything the losses ask for.

Half of a batch are strokes, three tenths contours, two tenths fractals. Half of the images carry a class-labelled
texture in the figure or in the ground; half of the others are white on black, the rest two random colours under
uneven light. In the second stage of training, most grounds that are neither black nor a texture are dead leaves.

The batch of a step depends on (seed, step) alone, so that training resumes without any saved state of a
random-number generator and anybody can look at the images of any step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn.functional import avg_pool2d, interpolate

from .canvas import SIDE, integers, normal, random_placements, uniform
from .contours import Contours
from .fractals import Fractals
from .leaves import dead_leaves
from .strokes import Strokes
from .textures import Textures

STROKES, CONTOURS, FRACTALS, TEXTURES = 30, 20, 20, 40
OBJECTS = STROKES + CONTOURS + FRACTALS
NO_TEXTURE = -100  # what cross-entropy ignores
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma
LEAFY = 0.6  # of the grounds that are neither black nor a texture
_STEPS = 1 << 32  # seeds of different runs do not meet as long as a run has fewer steps


@dataclass(frozen=True)
class Batch:
    """Images and everything that is known about them."""

    images: Tensor  # (N, 3, 32, 32) in [0, 1]
    masks: Tensor  # (N, 32, 32) in [0, 1], how much of a pixel is figure
    objects: Tensor  # (N,) in [0, OBJECTS)
    textures: Tensor  # (N,) in [0, TEXTURES), or NO_TEXTURE


class Mix:
    """The fixed classes of one seed, and the endless batches drawn from them."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        generator = Generator().manual_seed(seed)
        self.strokes = Strokes(STROKES, generator)
        self.contours = Contours(CONTOURS, generator)
        self.fractals = Fractals(FRACTALS, generator)
        self.textures = Textures(TEXTURES, generator)

    def batch(self, step: int, size: int, leaves: bool = True) -> Batch:
        """The images of a step; without `leaves`, figures stand on flat and textured grounds only."""
        generator = Generator().manual_seed((self.seed + 1) * _STEPS + step)
        masks, objects = self._figures(size, generator)
        textures = integers(size, TEXTURES, generator)
        style = torch.rand(size, generator=generator)
        textured, plain = style < 0.5, style >= 0.75  # between them: white on black
        figure, ground = _two_colours(size, generator)
        figure, ground = figure + _uneven_light(size, generator), ground + _uneven_light(size, generator)
        figure = torch.where(_each(textured | plain), figure, torch.ones_like(figure))
        ground = torch.where(_each(textured | plain), ground, torch.zeros_like(ground))
        pattern = self.textures.draw(textures, generator)
        in_figure = torch.rand(size, generator=generator) < 0.5
        if leaves:
            leafy = torch.rand(size, generator=generator) < LEAFY
            leafy &= plain | (textured & in_figure)
            ground = ground.clone()
            ground[leafy] = dead_leaves(int(leafy.sum()), generator)
        figure = torch.where(_each(textured & in_figure), pattern, figure)
        ground = torch.where(_each(textured & ~in_figure), pattern, ground)
        cover = masks[:, None]
        images = (ground + (figure - ground) * cover).clamp(0, 1)
        images = _degrade(images, textured, plain, generator)
        return Batch(images, masks, objects, textures.masked_fill(~textured, NO_TEXTURE))

    def _figures(self, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
        strokes, contours = size // 2, (size * 3) // 10
        masks, objects, first = [], [], 0
        for source, count in (
            (self.strokes, strokes),
            (self.contours, contours),
            (self.fractals, size - strokes - contours),
        ):
            labels = integers(count, source.classes, generator)
            masks.append(source.draw(labels, random_placements(count, generator), generator))
            objects.append(labels + first)
            first += source.classes
        return torch.cat(masks), torch.cat(objects)


def _each(flags: Tensor) -> Tensor:  # (N,) -> (N, 1, 1, 1)
    return flags[:, None, None, None]


def _two_colours(size: int, generator: Generator) -> tuple[Tensor, Tensor]:  # (N, 3, 32, 32) each
    """Colours at least 0.35 apart in some channel, or the figure could not be seen."""
    ground = torch.rand((size, 3), generator=generator)
    figure = torch.rand((size, 3), generator=generator)
    near = (figure - ground).abs().amax(dim=1, keepdim=True) < 0.35
    figure = torch.where(near, (ground + 0.5) % 1.0, figure)
    return (
        figure[:, :, None, None].expand(-1, -1, SIDE, SIDE),
        ground[:, :, None, None].expand(-1, -1, SIDE, SIDE),
    )


def _uneven_light(size: int, generator: Generator) -> Tensor:  # (N, 3, 32, 32)
    """Smooth colour clouds of a random strength."""
    strength = uniform((size, 1, 1, 1), 0.0, 0.2, generator)
    coarse = normal((size, 3, 4, 4), 1.0, generator)
    return interpolate(coarse, size=(SIDE, SIDE), mode="bilinear", align_corners=False) * strength


def _degrade(images: Tensor, textured: Tensor, plain: Tensor, generator: Generator) -> Tensor:
    """Low resolution, loss of colour, noise."""
    size = len(images)
    chance = torch.rand(size, generator=generator)
    coarse = avg_pool2d(images, 4)  # only where no texture could be lost
    medium = avg_pool2d(images, 2)
    images = torch.where(_each((chance < 0.3) & ~textured & ~plain), _enlarge(coarse), images)
    images = torch.where(_each(chance > 0.8), _enlarge(medium), images)
    luma = (images * torch.tensor(GREY)[:, None, None]).sum(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    images = torch.where(_each(torch.rand(size, generator=generator) < 0.15), luma, images)
    noise = normal((size, 3, SIDE, SIDE), 1.0, generator) * uniform((size, 1, 1, 1), 0.0, 0.08, generator)
    return (images + noise).clamp(0, 1)


def _enlarge(images: Tensor) -> Tensor:
    return interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
