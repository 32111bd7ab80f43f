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

#: Points on the ways to the image, and how many of them are looked at together.
STEPS, TOGETHER = 16, 4
#: Deviation of the noise that the ways begin at, in units of the normalised input.
NOISE = 0.5
#: A map has no more cells than this along a side: finer detail is noise of the gradient.
CELLS = 16

Score = Callable[[Tensor], Tensor]


def attributions(
    score: Score, image: Tensor, steps: int = STEPS, noise: float = NOISE
) -> Tensor:  # (channels, H, W) float32
    """Return what each value of an image adds to a score, by integrated gradients from noise.

    ::

        A = 1/n sum_i (x - b_i) * dS/dx (b_i + a_i (x - b_i)),   a_i = (i + 1/2) / n,   b_i ~ N(0, noise^2)

    Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, arXiv 1703.01365, with a baseline
    drawn for every point of the way, as in the expected gradients of Erion et al., Nature Machine Intelligence 2021,
    arXiv 1906.10670; Sturmfels, Lundberg and Lee, "Visualizing the Impact of Feature Attribution Baselines", Distill
    2020, compare baselines. Complete: the sum over the image approaches ``S(x) - E S(b)`` with n.

    Why not from one flat colour: a network that normalises its first convolution over channels (ConvNeXt) maps
    ``a x`` to nearly the same for every a > 0, and its gradients on that way vanish.

    Args:
        score: takes inputs (B, channels, H, W) and returns one number for each, (B,). Parameters get no gradient.
        image: one normalised input.
        steps: n.
        noise: deviation of the baselines; 0 is the flat mean colour. Drawn by a generator of its own, always the same.
    """
    draws, total = torch.Generator().manual_seed(0), torch.zeros_like(image)
    for some in ((torch.arange(steps) + 0.5) / steps).split(TOGETHER):
        start = (noise * torch.randn((len(some), *image.shape), generator=draws)).to(image)
        inputs = (start + some.to(image).view(-1, 1, 1, 1) * (image - start)).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(score(inputs).float().sum(), inputs)
        total += (gradient.detach() * (image - start)).sum(0)
    return total / steps


def evidence(
    score: Score, image: Tensor, cells: tuple[int, int], steps: int = STEPS, noise: float = NOISE
) -> Tensor:  # (rows, columns) float32, on the CPU
    """Return how much the parts of an image speak for a score, the most being 1.

    A cell is the sum of the attributions in it; what speaks against the score is 0. All 0 where nothing speaks for it,
    or the model's numbers are not finite.
    """
    found = attributions(score, image, steps, noise).double().sum(0).cpu()
    # the mean over cells, which the scale makes a sum where they are of one size; where the map has fewer cells than
    # the model has patches and they do not divide the image, neighbours share a row or column of pixels
    pooled = adaptive_avg_pool2d(found[None], cells)[0].clamp(min=0).float()
    largest = pooled.max()
    return pooled / largest if bool(largest > 0) and bool(largest.isfinite()) else torch.zeros(cells)


def grid_of(height: int, width: int, patch: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a map: one cell a patch of the model, but no more than 16 along a side."""
    rows, columns = height // max(1, patch[0]), width // max(1, patch[1])
    return max(1, min(CELLS, rows)), max(1, min(CELLS, columns))
