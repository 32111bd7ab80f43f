"""LoRA as the paper writes it, in fp32 (float64 when asked): the definition that every other tier is held against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from peftx_kernels.activation import ActivationSource
from peftx_kernels.context import autocast_off, compute_dtype, wide
from peftx_kernels.dropout import check_rate, draw_seed, keep_mask, kept_fraction

__all__ = ["lora_linear", "lora_linear_slices"]


def lora_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    scale: float,
    *,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:
    """y = x W^T + bias + scale drop(x) A^T B^T (eq. 3 of the paper, dropout as in its code)."""
    parts = ((0, weight.shape[0], a, b, scale),)
    return lora_linear_slices(x, weight, bias, parts, dropout=dropout, training=training)


def lora_linear_slices(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    parts: Sequence[tuple[int, int, Tensor, Tensor, float]],
    *,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:
    """y[..., start:stop] = x W^T + bias + scale drop(x) A^T B^T, the last term for the part's rows only."""
    check_rate(dropout)
    out_dtype, high = compute_dtype(x), wide(x.dtype)
    with autocast_off(x):
        x_high = x.to(high)
        y = x_high @ weight.to(high).T
        if bias is not None:
            y = y + bias.to(high)
        dropped = x_high
        if training and dropout > 0:
            dropped = x_high * keep_mask(x_high, dropout, draw_seed()) / kept_fraction(dropout)
        for start, stop, a, b, scale in parts:
            delta = scale * (dropped @ a.to(high).T) @ b.to(high).T
            rest = (start, weight.shape[0] - stop)
            y = y + torch.nn.functional.pad(delta, rest)
        return y.to(out_dtype)
