"""Grouped LoRA as one would write it down, in fp32 (float64 when asked): what every other tier is held against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from peftx_kernels.activation import ActivationSource
from peftx_kernels.context import autocast_off, compute_dtype, wide
from peftx_kernels.dropout import check_rate, draw_seed, keep_mask, kept_fraction
from peftx_kernels.ops.grouped_lora.groups import Groups

__all__ = ["grouped_lora"]


def grouped_lora(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: Groups,
    parts: Sequence[tuple[int, int, int, Tensor, Tensor, float]],
    *,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:
    """A loop over the parts: gather the rows of its group, two products, add the result to them."""
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
        flat_x, flat_y = dropped.reshape(-1, x.shape[-1]), y.reshape(-1, weight.shape[0])
        ids = groups.ids_on(x.device)
        for group, start, stop, a, b, scale in parts:
            rows = (ids == group).nonzero().flatten()
            delta = scale * (flat_x[rows] @ a.to(high).T) @ b.to(high).T
            flat_y = flat_y.index_add(
                0, rows, torch.nn.functional.pad(delta, (start, weight.shape[0] - stop))
            )
        return flat_y.reshape(y.shape).to(out_dtype)
