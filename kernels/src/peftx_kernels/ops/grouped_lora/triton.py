"""Grouped LoRA by Triton kernels: the library's product with W, and three segmented products beside it.

The number of launches depends neither on how many groups there are nor on how the rows are spread over them, and no
value of the ids is read on the host: the same CUDA graph serves every batch of a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from peftx_kernels.activation import ActivationSource
from peftx_kernels.context import autocast_off, compute_dtype
from peftx_kernels.dropout import check_rate, kept_fraction
from peftx_kernels.ops.grouped_lora import op
from peftx_kernels.ops.grouped_lora.groups import Groups
from peftx_kernels.ops.grouped_lora.launch import (
    blocks,
    grouped_backward,
    grouped_forward,
    sizes_of,
    tables,
)
from peftx_kernels.raw_op import raw_op
from peftx_kernels.table import KernelError

__all__ = ["fits", "grouped_lora"]

Parts = Sequence[tuple[int, int, int, Tensor, Tensor, float]]

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_LEVELS = 1 << 16  # as keep_mask counts


def fits(
    name: str, x: Tensor, weight: Tensor, bias: Any, groups: Groups, parts: Parts, **options: Any
) -> bool:
    """Whether `auto` takes the kernels. The bounds are estimates by the cost model, not measured.

    Two groups or more: one group's rows are a slice, which the library's products take as they are. Half precision: in
    fp32 the kernels do without tensor cores. Some rows: below, the launches are what costs, and there are as many.
    """
    return x.is_cuda and compute_dtype(x).itemsize == 2 and groups.n > 1 and groups.rows >= 16 and bool(parts)


def grouped_lora(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: Groups,
    parts: Parts,
    *,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:
    """See ``peftx_kernels.grouped_lora``. float64, and calls without rows or ranks, run as library calls.

    Raises:
        KernelError: a type the kernels do not have.
    """
    check_rate(dropout)
    op.check_parts(x, weight, groups, parts)
    dtype = compute_dtype(x)
    some = any(part[3].shape[0] for part in parts)
    if dtype is torch.float64 or not groups.rows or not some or torch._C._are_functorch_transforms_active():
        return op.grouped_lora(
            x, weight, bias, groups, parts, dropout=dropout, training=training, source=source
        )
    if dtype not in _DTYPES:
        raise KernelError(
            f"the kernels of grouped_lora take bfloat16, float16 and float32, not {dtype}; use grouped_lora=eager"
        )
    dropped = min(round(dropout * _LEVELS), _LEVELS - 1) if training else 0
    kept = kept_fraction(dropout) if dropped else 1.0
    # a tensor and not a number: a captured graph draws another mask whenever it runs
    seed = torch.randint(1 << 62, (1,), device=x.device) if dropped else x.new_empty(0, dtype=torch.int64)
    parts = sorted(parts, key=lambda part: part[0])
    layout = tuple((part[0], *part[1:3], part[3].shape[0], part[5] / kept) for part in parts)
    factors = [factor for part in parts for factor in part[3:5]]
    tile = blocks(dtype)
    chunks = groups.chunks(x.device, tile.rows)
    tensors = (
        *(chunks.order, chunks.starts, chunks.group, chunks.first, chunks.count),
        *tables(layout, groups.n, weight.shape[1], tile.ranks, True, x.device),
        *tables(layout, groups.n, weight.shape[1], tile.ranks, False, x.device),
    )
    numbers = astuple(sizes_of(layout, weight.shape[1], tile.ranks, dropped))
    return _GroupedLoRA.apply(
        x, weight, bias, source, dtype, astuple(tile), numbers, seed, *tensors, *factors
    )


_TABLES = 11  # tensors that say where rows and factors lie
_BEFORE = 8  # arguments of apply before them


class _GroupedLoRA(torch.autograd.Function):
    """apply(x, weight, bias, source, dtype, tile, numbers, seed, *tables, a1, b1, a2, b2, ...) -> y."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        source: ActivationSource | None,
        dtype: torch.dtype,
        tile: tuple[int, ...],
        numbers: tuple[int, ...],
        seed: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        chunks, downs, ups, factors = _sorted(tensors)
        with autocast_off(x):
            x_run = x.to(dtype)
            y, v = _forward(
                x_run,
                weight.to(dtype),
                None if bias is None else bias.to(dtype),
                _chain(factors[0::2], dtype),
                _chain(factors[1::2], dtype),
                seed,
                chunks,
                downs,
                ups,
                tile,
                numbers,
            )
        needs = ctx.needs_input_grad
        needs_factors = needs[_BEFORE + _TABLES :]
        ctx.reads_x = needs[1] or any(needs_factors[0::2])
        keep_x, keep_v = ctx.reads_x and source is None, any(needs_factors[1::2])
        ctx.save_for_backward(x_run if keep_x else None, v if keep_v else None, weight, seed, *tensors)
        ctx.source, ctx.static, ctx.dtype = source, (tile, numbers), dtype
        ctx.x_shape, ctx.x_dtype = x.shape, x.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, v, weight, seed, *tensors = ctx.saved_tensors
        tile, numbers = ctx.static
        chunks, downs, ups, factors = _sorted(tensors)
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        needs_factors = ctx.needs_input_grad[_BEFORE + _TABLES :]
        d_weight = d_bias = None
        with autocast_off(grad):
            d_y = grad.reshape(-1, grad.shape[-1])
            none = d_y.new_empty(0)
            flat_x = none
            if ctx.reads_x:
                x = x if ctx.source is None else ctx.source.recompute().to(ctx.dtype)
                flat_x = x.reshape(-1, x.shape[-1])
            d_x, d_a, d_b = _backward(
                d_y,
                flat_x,
                weight.to(ctx.dtype),
                _chain(factors[0::2], ctx.dtype),
                _chain(factors[1::2], ctx.dtype),
                none if v is None else v,
                seed,
                chunks,
                downs,
                ups,
                tile,
                numbers,
                (needs_x, any(needs_factors[0::2]), any(needs_factors[1::2])),
            )
            if needs_weight:
                d_weight = (d_y.t() @ flat_x).to(weight.dtype)
            if needs_bias:
                d_bias = d_y.sum(0).to(ctx.bias_dtype)
            gradients = _unchain(d_a, d_b, factors, needs_factors)
        d_x = d_x.view(ctx.x_shape).to(ctx.x_dtype) if needs_x else None
        return d_x, d_weight, d_bias, *[None] * (_BEFORE - 3 + _TABLES), *gradients


def _sorted(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    """The chunks, the items of A, those of B, and the factors."""
    every = list(tensors)
    return every[:5], every[5:8], every[8:_TABLES], every[_TABLES:]


def _chain(factors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat([factor.reshape(-1) for factor in factors]).to(dtype)


def _unchain(
    d_a: Tensor, d_b: Tensor, factors: Sequence[Tensor], needs: Sequence[bool]
) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    at = [0, 0]
    for place, (factor, needed) in enumerate(zip(factors, needs, strict=True)):
        side, flat = place % 2, (d_a, d_b)[place % 2]
        begin, at[side] = at[side], at[side] + factor.numel()
        found.append(flat[begin : at[side]].view(factor.shape).to(factor.dtype) if needed else None)
    return found


_COMMON = "Tensor seed, Tensor[] chunks, Tensor[] downs, Tensor[] ups, int[] tile, int[] numbers"


def _fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, seed: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    rows, ranks = x.numel() // x.shape[-1], rest[-1][0]
    return x.new_empty((*x.shape[:-1], weight.shape[0])), x.new_empty((rows, ranks))


_forward = raw_op(
    "grouped_lora_forward",
    f"(Tensor x, Tensor weight, Tensor? bias, Tensor a, Tensor b, {_COMMON}) -> (Tensor, Tensor)",
    _fake_forward,
)(grouped_forward)


def _fake_backward(
    d_y: Tensor, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, v: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    needs_x, needs_a, needs_b = rest[-1]
    return (
        d_y.new_empty((d_y.shape[0], weight.shape[1]) if needs_x else (0,)),
        d_y.new_empty((a.numel() if needs_a else 0,), dtype=torch.float32),
        d_y.new_empty((b.numel() if needs_b else 0,), dtype=torch.float32),
    )


_backward = raw_op(
    "grouped_lora_backward",
    "(Tensor d_y, Tensor x, Tensor weight, Tensor a, Tensor b, Tensor v, "
    f"{_COMMON}, bool[] needs) -> (Tensor, Tensor, Tensor)",
    _fake_backward,
)(grouped_backward)
