"""A LayerNorm's weight and bias inside the thin map behind it, forwards and backwards."""

from __future__ import annotations

import torch
from torch import Tensor

from peftx_kernels.context import wide

__all__ = ["folded", "unfolded"]


def folded(
    down: Tensor,  # (m, D)
    down_bias: Tensor | None,  # (m,)
    norm_weight: Tensor | None,  # (D,)
    norm_bias: Tensor | None,  # (D,)
    norms: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor | None]:  # (m, D), (m,)
    """Return (Wc, b) with LN(h) Wd^T + bd = Z Wc^T + b for the bare normalised Z; b in ``wide(dtype)``.

    Wc is Wd gamma less the mean of each row: as a row of Z has mean 0, that changes nothing. Without a norm Wc is Wd.
    """
    high = wide(dtype)
    bias = None if down_bias is None else down_bias.to(high)
    if not norms:
        return down.to(dtype), bias
    weight = down.to(high)
    if norm_bias is not None:
        moved = weight @ norm_bias.to(high)
        bias = moved if bias is None else moved.add_(bias)
    if norm_weight is not None:
        weight = weight * norm_weight.to(high)
    return (weight - weight.mean(1, keepdim=True)).to(dtype), bias


def unfolded(
    g: Tensor | None,  # (m, D), the gradient of Wd gamma
    d_bias: Tensor | None,  # (m,), the gradient of b
    down: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # (m, D), (D,), (D,)
    """Return the gradients of Wd, gamma and beta, or None where what one is made of is None."""
    d_down = d_gamma = d_beta = None
    if g is not None:
        d_down = g if norm_weight is None else g * norm_weight
        if norm_bias is not None and d_bias is not None:
            d_down = torch.addr(d_down.to(d_bias.dtype), d_bias, norm_bias.to(d_bias.dtype))
        if norm_weight is not None:
            d_gamma = (g * down.to(wide(g.dtype))).sum(0).to(norm_weight.dtype)
        d_down = d_down.to(down.dtype)
    if norm_bias is not None and d_bias is not None:
        d_beta = (d_bias @ down.to(d_bias.dtype)).to(norm_bias.dtype)
    return d_down, d_gamma, d_beta
