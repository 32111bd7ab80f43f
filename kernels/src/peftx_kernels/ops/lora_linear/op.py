"""LoRA from library calls alone: two extra products a layer, written into the output in place.

Forward     Y = X W^T + bias;  S = A X^T;  Y += s S^T B^T        (addmm_ with alpha: no S^T B^T, no scaled copy, no sum)
Backward    dS = s B^T dY^T;  dX = dY W;  dX += dS^T A;  dA = dS X;  dB = s (S dY)^T

Plain autograd would keep the same X and S; what this saves is traffic: every one of those removed temporaries is a
[T, out] tensor. See Unsloth's ``matmul_lora`` and the analysis in LoRAFusion (arXiv 2510.00206). S and dS are [R, T]:
with the thin side first no product has fewer than T columns, and CPU libraries are slow on narrow results (at R = 8,
T = 788, 768 -> 3072 the backward products take 3.9 ms so and 12.5 ms with S as [T, R]; at R = 16 4.7 and 5.2).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from peftx_kernels.activation import ActivationSource
from peftx_kernels.context import as_rows, autocast_off, compute_dtype, is_tracing, own_linear
from peftx_kernels.dropout import check_rate, draw_seed, keep_mask, kept_fraction
from peftx_kernels.ops.lora_linear.parts import Row, rows_of

__all__ = ["lora_linear", "lora_linear_slices", "recompute_product"]


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
    """See ``peftx_kernels.lora_linear``."""
    parts = ((0, weight.shape[0], a, b, scale),)
    return lora_linear_slices(x, weight, bias, parts, dropout=dropout, training=training, source=source)


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
    """See ``peftx_kernels.lora_linear_slices``."""
    check_rate(dropout)
    rate = dropout if training else 0.0
    if is_tracing():
        return _functional(x, weight, bias, parts, rate)
    if not parts:
        return F.linear(x, weight, bias)
    plan = _plan(x, weight, parts, rate, source)
    factors = [factor for part in parts for factor in part[2:4]]
    return _LoRALinear.apply(x, weight, bias, plan, *factors)


def _functional(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    parts: Sequence[tuple[int, int, Tensor, Tensor, float]],
    rate: float,
) -> Tensor:
    """The same equation without mutation or seeds: compilers fuse it and plan its recomputation themselves."""
    y = F.linear(x, weight, bias)
    dropped = F.dropout(x, rate) if rate > 0 else x
    for start, stop, a, b, scale in parts:
        delta = scale * F.linear(F.linear(dropped, a.to(x.dtype)), b.to(x.dtype))
        y = y + (delta if stop - start == weight.shape[0] else F.pad(delta, (start, weight.shape[0] - stop)))
    return y


@dataclass(frozen=True, slots=True)
class _Plan:
    rows: tuple[Row, ...]
    scale: float  # of the first part, as given
    dtype: torch.dtype
    rate: float
    seed: int
    source: ActivationSource | None


def _plan(
    x: Tensor,
    weight: Tensor,
    parts: Sequence[tuple[int, int, Tensor, Tensor, float]],
    rate: float,
    source: ActivationSource | None,
) -> _Plan:
    rows = rows_of(weight, parts, kept_fraction(rate) if rate > 0 else 1.0)
    return _Plan(rows, parts[0][4], compute_dtype(x), rate, draw_seed() if rate > 0 else 0, source)


class _LoRALinear(torch.autograd.Function):
    """apply(x, weight, bias, plan, a1, b1, a2, b2, ...) -> y."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan, *factors: Tensor
    ) -> Tensor:
        with autocast_off(x):
            x_run = x.to(plan.dtype)
            y = _base(x_run, weight, bias, plan)
            s = _project(_dropped(as_rows(x_run), plan), factors[0::2], plan)
            _add_products(as_rows(y), s, factors[1::2], plan)
        _, needs_weight, _, _, *needs_factors = ctx.needs_input_grad
        ctx.reads_x = needs_weight or any(needs_factors[0::2])
        # x_run and not x: under autocast that copy is half as large, and without it they are one tensor.
        keep_x = ctx.reads_x and plan.source is None
        keep_s = any(needs_factors[1::2])
        ctx.save_for_backward(x_run if keep_x else None, s if keep_s else None, weight, *factors)
        ctx.plan, ctx.x_shape, ctx.x_dtype = plan, x.shape, x.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, s, weight, *factors = ctx.saved_tensors
        plan: _Plan = ctx.plan
        downs, ups = factors[0::2], factors[1::2]
        needs_x, needs_weight, needs_bias, _, *needs_factors = ctx.needs_input_grad
        needs_a, needs_b = needs_factors[0::2], needs_factors[1::2]
        d_x = d_weight = d_bias = None
        d_a: list[Tensor | None] = [None] * len(downs)
        with autocast_off(grad):
            d_y = as_rows(grad)
            mask = _mask(d_y, weight, plan) if plan.rate > 0 and (needs_x or any(needs_a)) else None
            flat_x: Any = _input(x, plan) if ctx.reads_x else None
            d_s: Any = _project_backward(d_y, ups, plan) if needs_x or any(needs_a) else None
            if needs_x:
                d_x = _x_gradient(d_y, d_s, weight, downs, mask, plan).view(ctx.x_shape).to(ctx.x_dtype)
            if any(needs_a):
                stacked = d_s @ (flat_x if mask is None else flat_x * mask)
                d_a = [
                    _rows(stacked, row.low, row.high).to(a.dtype) if needed else None
                    for row, a, needed in zip(plan.rows, downs, needs_a, strict=True)
                ]
            d_b = [
                _b_gradient(d_y, s, row, b) if needed else None
                for row, b, needed in zip(plan.rows, ups, needs_b, strict=True)
            ]
            if needs_weight:
                d_weight = (d_y.t() @ flat_x).to(weight.dtype)
            if needs_bias:
                d_bias = d_y.sum(0).to(ctx.bias_dtype)
        return d_x, d_weight, d_bias, None, *itertools.chain.from_iterable(zip(d_a, d_b, strict=True))


def recompute_product(node: Any) -> Tensor:  # (T, out)
    """Return x W^T + the corrections, without bias, from what the node of a ``lora_linear`` kept."""
    x, s, weight, *factors = node.saved_tensors
    plan: _Plan = node.plan
    with torch.no_grad(), autocast_off(weight):
        flat_x = _input(x, plan)
        if s is None:
            s = _project(_dropped(flat_x, plan), factors[0::2], plan)
        y = _base(flat_x, weight, None, plan)
        _add_products(y, s, factors[1::2], plan)
    return y


def _rows(t: Tensor, start: int, stop: int) -> Tensor:
    """Return t[start:stop], or t itself where that is all of it: one call less a layer."""
    return t if start == 0 and stop == t.shape[0] else t[start:stop]


def _columns(t: Tensor, row: Row) -> Tensor:
    return t if row.start == 0 and row.stop == t.shape[1] else t[:, row.start : row.stop]


def _base(x: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan) -> Tensor:
    return own_linear(x, weight.to(plan.dtype), None if bias is None else bias.to(plan.dtype))


def _input(x: Tensor | None, plan: _Plan) -> Tensor:
    if plan.source is not None:
        return as_rows(plan.source.recompute()).to(plan.dtype)
    assert x is not None
    return as_rows(x)


def _dropped(flat_x: Tensor, plan: _Plan) -> Tensor:
    """Zero the dropped entries; 1 / kept fraction is in the parts' scales."""
    return flat_x * keep_mask(flat_x, plan.rate, plan.seed) if plan.rate > 0 else flat_x


def _mask(d_y: Tensor, weight: Tensor, plan: _Plan) -> Tensor:  # (T, in)
    return keep_mask(d_y.new_empty((d_y.shape[0], weight.shape[1])), plan.rate, plan.seed)


def _stack(downs: Sequence[Tensor], plan: _Plan) -> Tensor:  # (sum of R, in)
    return (downs[0] if len(downs) == 1 else torch.cat(list(downs))).to(plan.dtype)


def _project(flat_x: Tensor, downs: Sequence[Tensor], plan: _Plan) -> Tensor:  # (sum of R, T)
    return _stack(downs, plan) @ flat_x.t()


def _add_products(flat_y: Tensor, s: Tensor, ups: Sequence[Tensor], plan: _Plan) -> None:
    for row, b in zip(plan.rows, ups, strict=True):
        s_part = _rows(s, row.low, row.high)
        _columns(flat_y, row).addmm_(s_part.t(), b.to(plan.dtype).t(), alpha=row.scale)


def _project_backward(d_y: Tensor, ups: Sequence[Tensor], plan: _Plan) -> Tensor:  # (sum of R, T)
    d_s = d_y.new_empty((plan.rows[-1].high, d_y.shape[0]))
    for row, b in zip(plan.rows, ups, strict=True):
        part = _rows(d_s, row.low, row.high)
        # beta = 0: `part` is only written, so its uninitialised memory is never read.
        torch.addmm(part, b.to(plan.dtype).t(), _columns(d_y, row).t(), beta=0, alpha=row.scale, out=part)
    return d_s


def _x_gradient(
    d_y: Tensor, d_s: Tensor, weight: Tensor, downs: Sequence[Tensor], mask: Tensor | None, plan: _Plan
) -> Tensor:
    d_x = d_y @ weight.to(plan.dtype)
    if mask is None:
        return d_x.addmm_(d_s.t(), _stack(downs, plan))
    return d_x.addcmul_(d_s.t() @ _stack(downs, plan), mask)


def _b_gradient(d_y: Tensor, s: Tensor, row: Row, b: Tensor) -> Tensor:  # (stop - start, R)
    product = _rows(s, row.low, row.high) @ _columns(d_y, row)
    return torch.mul(product.t(), row.scale, out=torch.empty_like(b))
