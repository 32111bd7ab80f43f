"""DoRA as the paper writes it, in fp32 (float64 when asked): the definition that every other tier is held against."""

from __future__ import annotations

import torch
from torch import Tensor

from peftx_kernels.activation import ActivationSource
from peftx_kernels.context import autocast_off, compute_dtype, wide
from peftx_kernels.dropout import check_rate, draw_seed, keep_mask, kept_fraction
from peftx_kernels.ops.dora_linear.norm import row_sq

__all__ = ["dora_linear", "dora_norm"]


def dora_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    magnitude: Tensor,
    scale: float,
    *,
    weight_sq: Tensor | None = None,
    norm: Tensor | None = None,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:
    """y = g (x W^T + scale drop(x) A^T B^T) + bias, g = m / ||W + scale B A||_row, the norm detached (eq. 5 and 11)."""
    check_rate(dropout)
    out_dtype, high = compute_dtype(x), wide(x.dtype)
    with autocast_off(x):
        x_high, w, a, b = x.to(high), weight.to(high), a.to(high), b.to(high)
        norm = torch.linalg.vector_norm(w + scale * b @ a, dim=1).detach()  # whatever norm was given
        dropped = x_high
        if training and dropout > 0:
            dropped = x_high * keep_mask(x_high, dropout, draw_seed()) / kept_fraction(dropout)
        y = (magnitude.to(high) / norm) * (x_high @ w.T + scale * (dropped @ a.T) @ b.T)
        if bias is not None:
            y = y + bias.to(high)
        return y.to(out_dtype)


def dora_norm(weight_sq: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """||W + scale B A|| of every row, of the dense matrix."""
    high = wide(weight.dtype)
    with torch.no_grad(), autocast_off(weight):
        merged = weight.to(high) + scale * b.to(high) @ a.to(high)
        return row_sq(merged).clamp_(min=1e-24).sqrt_()
