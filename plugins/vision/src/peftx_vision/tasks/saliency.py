"""Where in an image a prediction comes from: the same measure for every model and every adapter.

It looks at the input alone, so it needs no map of a family's inside: no class token, windows or stages, and no place
that an adapter's own tokens could shift.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

__all__ = ["attributions", "evidence", "grid_of"]

#: Points on the way from the baseline to the image, and how many of them are looked at together.
STEPS, TOGETHER = 16, 4
#: A map has no more cells than this along a side: finer detail is noise of the gradient.
CELLS = 16

Score = Callable[[Tensor], Tensor]


def attributions(score: Score, image: Tensor, steps: int = STEPS) -> Tensor:  # (channels, H, W) float32
    """Return what each value of an image adds to a score, by integrated gradients.

    ::

        A = x * 1/n sum_i dS/dx (a_i x),   a_i = (i + 1/2) / n

    Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, arXiv 1703.01365, with the
    midpoint rule. The baseline is 0 of the normalised input, the mean colour that the model is fed: what has that
    colour gets nothing. Complete: the sum over the image approaches ``S(x) - S(0)`` with n.

    Args:
        score: takes inputs (B, channels, H, W) and returns one number for each, (B,). Parameters get no gradient.
        image: one normalised input.
        steps: n.
    """
    total = torch.zeros_like(image)
    for some in ((torch.arange(steps) + 0.5) / steps).split(TOGETHER):
        inputs = (some.to(image).view(-1, 1, 1, 1) * image).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(score(inputs).float().sum(), inputs)
        total += gradient.detach().sum(0)
    return image * total / steps


def evidence(score: Score, image: Tensor, cells: tuple[int, int], steps: int = STEPS) -> Tensor:
    """Return how much the parts of an image speak for a score: (rows, columns) float32 on the CPU, the most being 1.

    A cell is the sum of the attributions in it; what speaks against the score is 0. All 0 where nothing speaks for it,
    or the model's numbers are not finite.
    """
    found = attributions(score, image, steps).double().sum(0).cpu()
    # the mean over cells of equal size, which the scale makes a sum
    pooled = adaptive_avg_pool2d(found[None], cells)[0].clamp(min=0).float()
    largest = pooled.max()
    return pooled / largest if bool(largest > 0) and bool(largest.isfinite()) else torch.zeros(cells)


def grid_of(height: int, width: int, patch: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a map: one cell a patch of the model, but no more than 16 along a side."""
    rows, columns = height // max(1, patch[0]), width // max(1, patch[1])
    return max(1, min(CELLS, rows)), max(1, min(CELLS, columns))
