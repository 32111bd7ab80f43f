"""Row lengths and the backward pass of the gate as launches of kernels, and as operations that a compiler sees.

The product itself, with the gate in its epilogue, is that of ``lora_linear``.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from peftx_kernels.ops.dora_linear import gates, lengths
from peftx_kernels.ops.dora_linear.norm import CANCELLED
from peftx_kernels.ops.lora_linear.calls import even, flat, splits, wished
from peftx_kernels.raw_op import raw_op

__all__ = ["dora_gradients", "dora_lengths"]


def _no_lengths(weight_sq: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return weight.new_empty((weight.shape[0],), dtype=torch.float32)


@raw_op(
    "dora_lengths",
    "(Tensor weight_sq, Tensor weight, Tensor a, Tensor b, float scale) -> Tensor",
    _no_lengths,
)
def dora_lengths(
    weight_sq: Tensor,  # (out,) fp32
    weight: Tensor,  # (out, in), one of its strides is 1
    a: Tensor,  # (R, in)
    b: Tensor,  # (out, R)
    scale: float,
) -> Tensor:  # (out,) fp32
    """Return ||W + scale B A|| of every row; types may differ, the sums are fp32."""
    weight_sq, a, b = weight_sq.contiguous(), a.contiguous(), b.contiguous()
    (out, width), ranks = weight.shape, a.shape[0]
    split = weight.dtype.itemsize == 2 and a.dtype != weight.dtype
    aligned = even(width, ranks, max(weight.stride()))
    at = lengths.configuration(ranks, weight.dtype, even=aligned, split=split)
    norm = torch.empty((out,), dtype=torch.float32, device=weight.device)
    g = _gram(a, weight.dtype, aligned)
    grid = (triton.cdiv(out, at.n), triton.cdiv(ranks, at.r))
    shares, share = splits(grid[0] * grid[1], width, at.k, weight.device)
    sums = torch.empty((grid[1] * shares, out), dtype=torch.float32, device=weight.device)
    lengths.terms[(*grid, shares)](
        weight,
        a,
        b,
        g,
        sums,
        scale,
        out,
        width,
        ranks,
        share,
        *weight.stride(),
        EXACT=weight.dtype.itemsize == 4,
        SPLIT=split,
        BLOCK_N=at.n,
        BLOCK_R=at.r,
        BLOCK_K=at.k,
        BLOCK_Q=lengths.INNER,
        num_warps=at.warps,
        num_stages=at.stages,
    )
    lengths.finish[(triton.cdiv(out, lengths.FINISH["BLOCK_N"]),)](
        weight_sq,
        sums,
        weight,
        a,
        b,
        norm,
        scale,
        CANCELLED,
        out,
        width,
        ranks,
        sums.shape[0],
        *weight.stride(),
        **lengths.FINISH,
        num_warps=4,
        num_stages=2,
    )
    return norm


def _gram(a: Tensor, dtype: torch.dtype, aligned: bool) -> Tensor:
    """Return A A^T in fp32, (R, R)."""
    ranks, width = a.shape
    at = lengths.configuration(ranks, dtype, even=aligned, split=True)
    grid = (triton.cdiv(ranks, at.r), triton.cdiv(ranks, at.r))
    most = min(wished(grid[0] * grid[1], a.device), lengths.most_shares(ranks))
    share = at.k * triton.cdiv(triton.cdiv(width, at.k), most)
    shares = triton.cdiv(width, share)
    g = torch.empty((shares, ranks, ranks), dtype=torch.float32, device=a.device)
    lengths.gram[(*grid, shares)](
        a,
        g,
        ranks,
        width,
        share,
        EXACT=dtype.itemsize == 4,
        BLOCK_R=at.r,
        BLOCK_K=at.k,
        num_warps=at.warps,
        num_stages=at.stages,
    )
    return g[0] if shares == 1 else g.sum(0)


def _no_gradients(
    d_y: Tensor,
    y: Tensor | None,
    gated: bool,
    gate: Tensor,
    norm: Tensor,
    bias: Tensor | None,
    x: Tensor | None,
    s: Tensor | None,
    weight: Tensor | None,
    b: Tensor | None,
    smallest: float,
    needs_l: bool,
    needs_total: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    out = d_y.shape[-1]
    d_l = d_y.new_empty(d_y.shape if needs_l else (0,))
    d_m = gate.new_empty((out if y is not None else 0,))
    return d_l, d_m, gate.new_empty((out if needs_total else 0,))


@raw_op(
    "dora_gradients",
    "(Tensor d_y, Tensor? y, bool gated, Tensor gate, Tensor norm, Tensor? bias, Tensor? x, Tensor? s, "
    "Tensor? weight, Tensor? b, float smallest, bool needs_l, bool needs_total) -> (Tensor, Tensor, Tensor)",
    _no_gradients,
)
def dora_gradients(
    d_y: Tensor,  # (..., out)
    y: Tensor | None,  # (..., out); None where the magnitude needs no gradient
    gated: bool,
    gate: Tensor,  # (out,) fp32
    norm: Tensor,  # (out,) fp32
    bias: Tensor | None,  # (out,)
    x: Tensor | None,  # (..., in), with y
    s: Tensor | None,  # (T, R), with y
    weight: Tensor | None,  # (out, in), one of its strides is 1; with y
    b: Tensor | None,  # (out, R), with y
    smallest: float,
    needs_l: bool,
    needs_total: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dL = gate dY, dm and sum_t dY, the last two fp32; those not needed are empty.

    dm = (sum_t dY Y - bias sum_t dY) / (gate norm), from x where |gate| < `smallest`. With `gated` off y is the product
    without gate and bias: then dm = sum_t dY y / norm.
    """
    rows = flat(d_y)
    out = rows.shape[1]
    d_l = d_y.new_empty(d_y.shape if needs_l else (0,))
    d_m = gate.new_zeros((out if y is not None else 0,))
    if not rows.shape[0]:
        return d_l, d_m, gate.new_zeros((out if needs_total else 0,))
    at = gates.configuration(even=even(out, rows.stride(0)))
    columns = triton.cdiv(out, at.n)
    parts, share = splits(columns, rows.shape[0], at.t, rows.device)
    dots = None if y is None else gate.new_empty((parts, out))
    counted = needs_total or (y is not None and bias is not None)
    totals = gate.new_empty((parts, out)) if counted else None
    gates.gate_pass[(columns, parts)](
        rows,
        None if y is None else flat(y).contiguous(),
        gate,
        d_l if needs_l else None,
        dots,
        totals,
        rows.shape[0],
        out,
        share,
        rows.stride(0),
        BLOCK_T=at.t,
        BLOCK_N=at.n,
        num_warps=at.warps,
        num_stages=2,
    )
    if dots is not None:
        assert x is not None and s is not None and weight is not None and b is not None
        _settle(d_m, dots, totals, gate if gated else None, norm, bias, flat(x), s, weight, b, rows, smallest)
    total = totals.sum(0) if needs_total and totals is not None else gate.new_empty(0)
    return d_l, d_m, total


def _settle(
    d_m: Tensor,
    dots: Tensor,
    totals: Tensor | None,
    gate: Tensor | None,
    norm: Tensor,
    bias: Tensor | None,
    x: Tensor,
    s: Tensor,
    weight: Tensor,
    b: Tensor,
    d_y: Tensor,
    smallest: float,
) -> None:
    rows, out = d_y.shape
    gates.settle[(triton.cdiv(out, gates.SETTLE["BLOCK_N"]),)](
        dots,
        None if bias is None else totals,
        bias,
        gate,
        norm,
        d_m,
        x,
        weight,
        s,
        b.contiguous(),
        d_y,
        smallest,
        rows,
        out,
        x.shape[1],
        s.shape[1],
        dots.shape[0],
        x.stride(0),
        *weight.stride(),
        d_y.stride(0),
        **gates.SETTLE,
        num_warps=4,
        num_stages=2,
    )
