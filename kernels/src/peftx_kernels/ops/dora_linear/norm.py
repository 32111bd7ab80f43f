"""Row lengths of W + s B A without forming it (Scaling DoRA, arXiv 2603.22276).

||W + s B A||^2 = ||W||^2 + 2 s rowsum(B * W A^T) + s^2 rowsum(B (A A^T) * B): three thin products, and the first term
is constant while W is frozen. Where the correction all but cancels a row of W the three terms cancel too (in fp32 their
sum can be wrong in every digit), so such rows are formed after all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peftx_kernels.context import autocast_off, is_tracing, wide

__all__ = ["CANCELLED", "dora_norm", "row_sq"]

CANCELLED = 2.1e-4
"""Rows below this share of ||W||^2 are formed densely. The published guard is n^2 < 1e-4 (base + gram). As n is at
least |sqrt(base) - sqrt(gram)|, that guard needs gram < 1.03 base and so implies n^2 < 2.1e-4 base, which needs no
gram of its own."""
_EPS = 1e-12  # the norm of an all-zero row: what is divided by it is then huge but finite
_BLOCK = 1 << 22  # entries of W that are widened at once: 16 MiB


def row_sq(weight: Tensor) -> Tensor:  # (out, in) -> (out,)
    """Return the squared length of every row, in fp32 (float64 for float64 weights)."""
    return torch.linalg.vector_norm(weight.detach(), dim=1, dtype=wide(weight.dtype)).square()


def dora_norm(
    weight_sq: Tensor,  # (out,), row_sq(weight)
    weight: Tensor,  # (out, in)
    a: Tensor,  # (R, in)
    b: Tensor,  # (out, R)
    scale: float,
) -> Tensor:  # (out,)
    """Return ||W + scale B A|| per row, in fp32 (float64 for float64 weights), outside of autograd.

    Relative error about 1e-6 in fp32, also in rows that the correction all but cancels; NaN in gives NaN out; an
    all-zero row gives 1e-12, to be divided by.
    """
    args = (weight_sq.detach(), weight.detach(), a.detach(), b.detach(), float(scale))
    # Which rows cancelled is only known from the data: opaque to a compiler, so it never has to trace the question.
    return torch.ops.peftx.dora_norm(*args) if is_tracing() or weight.is_meta else _dora_norm(*args)


@torch.no_grad()
def _dora_norm(weight_sq: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    high = wide(weight.dtype)
    with autocast_off(weight):
        a, b = a.to(high), b.to(high)
        # (R, out), thin side first as in lora_linear: narrow results are slow on a CPU
        terms = _widened_product(a, weight).addmm_(a @ a.t(), b.t(), beta=2 * scale, alpha=scale * scale)
        squares = terms.mul_(b.t()).sum(0).add_(weight_sq)
        # Written so that NaN, which a zero row of W gives here, takes the careful way.
        if not (squares / weight_sq).min().item() >= CANCELLED:
            rows = (squares < CANCELLED * weight_sq).nonzero().squeeze(1)
            dense = torch.addmm(weight[rows].to(high), b[rows], a, alpha=scale)
            squares[rows] = row_sq(dense)
            squares.clamp_(min=_EPS * _EPS)
        return squares.sqrt_()


def _widened_product(a: Tensor, weight: Tensor) -> Tensor:  # (R, out)
    """Return A W^T in a's dtype; a half-precision W is widened by blocks of rows, never as a whole."""
    if weight.dtype == a.dtype:
        return a @ weight.t()
    rows = max(1, _BLOCK // max(1, weight.shape[1]))
    return torch.cat([a @ block.to(a.dtype).t() for block in weight.split(rows)], dim=1)


_registered = torch.library.custom_op(
    "peftx::dora_norm",
    _dora_norm,
    mutates_args=(),
    schema="(Tensor weight_sq, Tensor weight, Tensor a, Tensor b, float scale) -> Tensor",
)


@_registered.register_fake
def _(weight_sq: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return weight.new_empty((weight.shape[0],), dtype=wide(weight.dtype))
