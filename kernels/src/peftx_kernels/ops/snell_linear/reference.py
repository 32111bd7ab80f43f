"""SNELL and SNELLA as their papers and code write them, by plain autograd: what every other tier is held against.

Whole maps, in fp32 (float64 when asked). ``factor`` overrides the constant K of the backward, so that a test can hold
it fixed while it moves the factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from peftx_kernels.activation import ActivationSource
from peftx_kernels.context import autocast_off, compute_dtype, wide
from peftx_kernels.dropout import check_rate, draw_seed, keep_mask, kept_fraction

if TYPE_CHECKING:
    from peftx_kernels.ops.snell_linear.part import SnellPart

__all__ = ["kernel_map", "snell_linear", "snell_update", "sparsified"]


def kernel_map(part: SnellPart, dtype: torch.dtype) -> Tensor:  # (out, in)
    """V^T with V[i, j] = c (D_0 - D_1), D_h[i, j] = ||A_h[i] - B_h[j]||_2; with ``mix`` V' of SNELLA."""
    a, b = part.a.to(dtype), part.b.to(dtype)
    v = a.new_zeros(b.shape[1], a.shape[1])
    for group in range(a.shape[0]):
        # vector_norm's subgradient at zero is zero: identical rows give no NaN
        distance = torch.linalg.vector_norm(b[group, :, None] - a[group, None, :], dim=-1)
        v = v + part.scale * (-1) ** group * distance
    if part.mix is not None:
        alpha, gamma, beta = (t.to(dtype) for t in part.mix)
        v = v + alpha * torch.softmax(v / gamma, dim=0) + beta  # over the outputs, which are the rows here
    return v


def sparsified(v: Tensor, part: SnellPart, factor: Tensor | None = None) -> Tensor:
    """S = V K with K constant (official, paper), the soft threshold of V, or V itself (dense)."""
    if part.mode == "dense":
        return v
    if factor is None:
        magnitude = v.detach().abs()
        ordered = magnitude.flatten().sort().values
        if part.mode == "paper":
            count = math.ceil(float(part.sparsity) * v.numel())
            threshold = ordered[count - 1] if count else v.new_zeros(())
        else:
            threshold = torch.quantile(ordered, float(part.sparsity))
        if part.mode == "official":
            factor = magnitude * (magnitude > threshold)
        elif part.mode == "paper":
            factor = (magnitude - threshold).clamp(min=0)
        else:
            return F.softshrink(v, float(threshold))
    return v * factor


def snell_update(part: SnellPart) -> Tensor:  # (stop - start, in)
    """S^T."""
    with autocast_off(part.a):
        return sparsified(kernel_map(part, wide(part.a.dtype)), part)


def snell_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    parts: Sequence[SnellPart],
    *,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:
    """y[..., start:stop] = x W^T + bias + path(drop(x) S), the last term for each part's rows only."""
    check_rate(dropout)
    check_rate(drop_path)
    out_dtype, high = compute_dtype(x), wide(x.dtype)
    with autocast_off(x):
        x_high = x.to(high)
        y = x_high @ weight.to(high).T
        if bias is not None:
            y = y + bias.to(high)
        dropped = x_high
        if training and dropout > 0:
            dropped = dropped * keep_mask(x_high, dropout, draw_seed()) / kept_fraction(dropout)
        if training and drop_path > 0:
            samples = x_high.new_empty((x.shape[0] if x.dim() > 1 else 1, *(1,) * (x.dim() - 1)))
            dropped = dropped * keep_mask(samples, drop_path, draw_seed()) / kept_fraction(drop_path)
        for part in parts:
            update = sparsified(kernel_map(part, high), part)
            rest = (part.start, weight.shape[0] - part.stop)
            y = y + F.pad(dropped @ update.T, rest)
        return y.to(out_dtype)
