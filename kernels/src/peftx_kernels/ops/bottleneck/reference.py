"""The bottleneck adapter as its papers write it, in fp32 (float64 when asked): what other tiers are held against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from peftx_kernels.context import autocast_off, compute_dtype, wide
from peftx_kernels.dropout import draw_seed, keep_mask, kept_fraction
from peftx_kernels.ops.bottleneck.check import check_call

__all__ = ["bottleneck"]


def bottleneck(
    h: Tensor,
    down: Tensor,
    up: Tensor,
    *,
    down_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    residual: Tensor | None = None,
    scale: float | Tensor = 1.0,
    activation: str = "gelu",
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    norm_eps: float | None = None,
    dropout: float = 0.0,
    training: bool = False,
) -> Tensor:
    """o = r + s (drop(f(LN(h) Wd^T + bd)) Wu^T + bu) (AdaptFormer, eq. 2 and 3; Houlsby et al., section 2.1)."""
    check_call(
        h,
        down,
        up,
        down_bias,
        up_bias,
        residual,
        scale,
        activation,
        norm_weight,
        norm_bias,
        norm_eps,
        dropout,
    )
    out_dtype, high = compute_dtype(h), wide(h.dtype)
    if residual is not None:
        out_dtype = torch.promote_types(out_dtype, residual.dtype)

    def widened(t: Tensor | None) -> Tensor | None:
        return None if t is None else t.to(high)

    with autocast_off(h):
        z = h.to(high)
        if norm_eps is not None:
            z = F.layer_norm(z, z.shape[-1:], widened(norm_weight), widened(norm_bias), norm_eps)
        u = F.linear(z, down.to(high), widened(down_bias))
        v = _activated(u, activation)
        if training and dropout > 0:
            v = v * keep_mask(v, dropout, draw_seed()) / kept_fraction(dropout)
        o = scale * F.linear(v, up.to(high), widened(up_bias))
        if residual is not None:
            o = residual.to(high) + o
        return o.to(out_dtype)


def _activated(u: Tensor, activation: str) -> Tensor:
    if activation == "relu":
        return torch.relu(u)
    if activation == "silu":
        return u * torch.sigmoid(u)
    if activation == "gelu":
        return 0.5 * u * (1 + torch.erf(u / 2**0.5))
    return 0.5 * u * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (u + 0.044715 * u**3)))
