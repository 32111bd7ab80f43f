"""The same equations without mutation, seeds or shapes that depend on values: what compilers and torch.func see."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from peftx_kernels.context import compute_dtype, wide
from peftx_kernels.ops.snell_linear.part import SnellPart
from peftx_kernels.ops.snell_linear.quantile import magnitude_quantile

__all__ = ["functional_linear", "functional_update"]


def functional_update(part: SnellPart, dtype: torch.dtype) -> Tensor:  # (stop - start, in)
    """S^T, whole maps at a time: a compiler fuses and recomputes as it sees fit."""
    a, b = part.a.to(dtype), part.b.to(dtype)
    v = _distance(a[0], b[0])
    for group in range(1, a.shape[0]):
        distance = _distance(a[group], b[group])
        v = v + distance if group % 2 == 0 else v - distance
    v = part.scale * v
    if part.mix is not None:
        alpha, gamma, beta = (t.to(dtype) for t in part.mix)
        v = v + alpha * torch.softmax(v / gamma, dim=0) + beta
    if part.mode == "dense":
        return v
    still = v.detach()
    magnitude = still.abs()
    t = magnitude_quantile(still, part.sparsity, smallest=part.mode == "paper", static=True)
    if part.mode == "soft":
        return (v - still.clamp(-t, t)) * (magnitude > t)
    factor = magnitude * (magnitude > t) if part.mode == "official" else (magnitude - t).clamp(min=0)
    return v * factor


def _distance(a: Tensor, b: Tensor) -> Tensor:  # (out, in)
    squares = torch.zeros_like(b[:, :1] - a[:, 0])
    for coordinate in range(a.shape[1]):
        squares = squares + (b[:, coordinate, None] - a[:, coordinate]).square()
    away = squares > 0
    return torch.where(away, torch.where(away, squares, 1.0).sqrt(), 0.0)


def functional_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    parts: tuple[SnellPart, ...],
    dropout: float,
    drop_path: float,
) -> Tensor:
    """See ``peftx_kernels.snell_linear``."""
    dtype = compute_dtype(x)
    out = weight.shape[0]
    if not (dropout or drop_path) and dtype in (torch.float32, torch.float64):
        for part in parts:
            update = functional_update(part, wide(dtype))
            weight = weight + F.pad(update, (0, 0, part.start, out - part.stop))
        return F.linear(x, weight, bias)
    y = F.linear(x, weight, bias)
    dropped = F.dropout(x, dropout) if dropout > 0 else x
    if drop_path > 0:
        samples = x.new_ones((x.shape[0] if x.dim() > 1 else 1, *(1,) * (x.dim() - 1)))
        dropped = dropped * F.dropout(samples, drop_path)
    for part in parts:
        update = functional_update(part, wide(dtype))
        if dtype is torch.float16:
            exponent = torch.frexp(update.detach().abs().amax().clamp_min(2.0**-100)).exponent
            scaled = update * torch.ldexp(update.new_ones(()), -exponent)
            delta = F.linear(dropped, scaled.to(dtype)) * torch.ldexp(update.new_ones(()), exponent)
        else:
            delta = F.linear(dropped, update.to(dtype))
        y = y + F.pad(delta.to(y.dtype), (part.start, out - part.stop))
    return y
