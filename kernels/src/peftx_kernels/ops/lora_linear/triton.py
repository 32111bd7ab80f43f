"""``lora_linear`` as Triton kernels: the low-rank term costs no pass over the output, dropout no mask.

What is kept for the backward pass is what the eager form keeps: x, S of the stacked adapters, and of dropout a seed. S
holds the scale here, and is (T, ranks). The equations stand in ``launch``, the kernels in ``product`` and ``thin``.

Left to the eager form, also where Triton was asked for: float64, tensors without data (meta), tensors on a device that
has no kernels, ``torch.func`` transforms, maps without rows or columns, and calls without parts. With half-precision
factors beside a wider x the factors are widened.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from peftx_kernels.activation import ActivationSource
from peftx_kernels.aot import Kernel
from peftx_kernels.availability import interpreting
from peftx_kernels.context import autocast_off, compute_dtype, is_tracing
from peftx_kernels.dropout import check_rate, kept_fraction
from peftx_kernels.ops.lora_linear import op, product, thin
from peftx_kernels.ops.lora_linear.calls import flat
from peftx_kernels.ops.lora_linear.launch import LONGEST, lora_backward, lora_forward
from peftx_kernels.ops.lora_linear.parts import layout_of, rows_of

__all__ = [
    "FEWEST",
    "corrected",
    "fits",
    "given_back",
    "kernels",
    "lora_linear",
    "lora_linear_slices",
    "runs_here",
]

FEWEST = 1 << 32
"""Products of rows, in and out below which launches cost more than the kernels save: an estimate from the cost model
(20 us of work on an H200), not measured."""

Parts = Sequence[tuple[int, int, Tensor, Tensor, float]]


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
    parts: Parts,
    *,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:
    """See ``peftx_kernels.lora_linear_slices``."""
    check_rate(dropout)
    if not parts or not runs_here(x, weight):
        return op.lora_linear_slices(
            x, weight, bias, parts, dropout=dropout, training=training, source=source
        )
    return corrected(x, weight, bias, parts, dropout if training else 0.0, source)


def corrected(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    parts: Parts,
    rate: float,
    source: ActivationSource | None,
    gate: Tensor | None = None,
) -> Tensor:
    """Return L = x W^T + corrections + bias; with a gate g, return y = g L + (1 - g) bias in its place.

    The backward pass knows of no gate: the gradient that comes in is taken for that of L. Whoever gives one hands on
    such a gradient. For a gate that requires grad x and S are kept, to be asked for by `given_back`.

    Raises:
        ValueError: a part that does not fit its rows.
    """
    rows = rows_of(weight, parts, kept_fraction(rate) if rate > 0 else 1.0)
    # a tensor, so that a compiler draws a new one in every run; on the CPU, so that reading it waits for no device
    seed = torch.randint(1 << 62, ()) if rate > 0 else None
    tracing = is_tracing()
    function = _Traced if tracing else _Fused
    y: Tensor = function.apply(
        x,
        weight,
        bias,
        gate,
        seed,
        tuple(layout_of(rows)),
        tuple(row.scale for row in rows),
        rate,
        compute_dtype(x),
        None if tracing else source,
        *(factor for part in parts for factor in part[2:4]),
    )
    return y


def runs_here(x: Tensor, weight: Tensor) -> bool:
    """Return whether the kernels can run this call at all."""
    return (
        (x.is_cuda or (interpreting() and x.device.type == "cpu"))
        and compute_dtype(x) in (torch.float32, torch.bfloat16, torch.float16)
        and weight.dim() == 2
        and weight.shape[0] > 0
        and weight.shape[1] > 0
        and not torch._C._are_functorch_transforms_active()
    )


def fits(name: str, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any, **options: Any) -> bool:
    """Return whether the kernels are for this call: see `FEWEST`, and where they save a pass over something large."""
    parts: Parts = rest[0] if name == "lora_linear_slices" else ((0, weight.shape[0], *rest[:3]),)
    if not parts or not x.is_cuda or not runs_here(x, weight) or compute_dtype(x) is torch.float32:
        return False
    out, width = weight.shape
    if out % 16 or width % 16 or x.numel() * out < FEWEST:
        return False
    drops = options.get("training", False) and options.get("dropout", 0.0) > 0
    low = max(part[2].shape[0] for part in parts) <= thin.WIDEST
    return drops or low or min(out, width) <= LONGEST


class _Traced(torch.autograd.Function):
    """apply(x, weight, bias, gate, seed, layout, scales, rate, dtype, source, a1, b1, ...) -> y."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        gate: Tensor | None,
        seed: Tensor | None,
        layout: tuple[int, ...],
        scales: tuple[float, ...],
        rate: float,
        dtype: torch.dtype,
        source: ActivationSource | None,
        *factors: Tensor,
    ) -> Tensor:
        with autocast_off(x):
            x_run = x.to(dtype)
            y, s = lora_forward(
                x_run,
                weight.to(dtype),
                None if bias is None else bias.to(dtype),
                *_joined(factors),
                gate,
                seed,
                list(layout),
                list(scales),
                rate,
            )
        _, needs_weight, _, needs_gate, *_ = ctx.needs_input_grad
        needs_factors = ctx.needs_input_grad[10:]
        ctx.reads_x = needs_gate or needs_weight or any(needs_factors[0::2])
        # x_run and not x: under autocast that copy is half as large, and without it they are one tensor
        keep_x = ctx.reads_x and source is None
        keep_s = needs_gate or any(needs_factors[1::2])
        ctx.save_for_backward(x_run if keep_x else None, s if keep_s else None, weight, seed, *factors)
        ctx.layout, ctx.scales, ctx.rate, ctx.dtype, ctx.source = layout, scales, rate, dtype, source
        ctx.x_shape, ctx.x_dtype = x.shape, x.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, grad, *ctx.saved_tensors)


class _Fused(_Traced):
    """The same outside of compilers, which do not follow what refuses a second derivative."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        unpacked = _unpacked(ctx)
        ctx.unpacked = None
        return _gradients(ctx, grad, *unpacked)


def _gradients(
    ctx: Any,
    grad: Tensor,
    x: Any,
    s: Tensor | None,
    weight: Tensor,
    seed: Tensor | None,
    *factors: Tensor,
) -> tuple[Tensor | None, ...]:
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    needs_factors = ctx.needs_input_grad[10:]
    needs_a, needs_b = needs_factors[0::2], needs_factors[1::2]
    d_x = d_weight = d_bias = None
    with autocast_off(grad):
        a, b = _joined(factors)
        d_x_run, all_a, all_b = lora_backward(
            grad,
            x,
            s,
            weight.to(ctx.dtype),
            a,
            b,
            seed,
            list(ctx.layout),
            list(ctx.scales),
            ctx.rate,
            needs_x,
            any(needs_a),
            any(needs_b),
        )
        if needs_x:
            d_x = d_x_run.to(ctx.x_dtype)
        if needs_weight:
            d_weight = (flat(grad).t() @ flat(x)).to(weight.dtype)
        if needs_bias:
            d_bias = flat(grad).sum(0).to(ctx.bias_dtype)
        d_a = _parted(all_a, factors[0::2], needs_a)
        d_b = _parted(all_b, factors[1::2], needs_b)
    return d_x, d_weight, d_bias, *(None,) * 7, *itertools.chain.from_iterable(zip(d_a, d_b, strict=True))


def given_back(node: Any) -> tuple[Any, ...]:
    """Return (x, S, W, seed, a1, b1, ...) of a node to the one before it, in that one's backward pass.

    They are handed on to the node itself: under hooks on saved tensors, asking twice would load them twice, or is
    forbidden (activation checkpointing).
    """
    node.unpacked = unpacked = _unpacked(node)
    # should the node itself not be asked for a gradient, nothing else lets go of them
    engine: Any = torch.autograd.Variable._execution_engine  # type: ignore[attr-defined]
    engine.queue_callback(lambda: setattr(node, "unpacked", None))
    return unpacked


def _unpacked(node: Any) -> tuple[Any, ...]:
    """Return what was kept, or handed on, with x recomputed where it was not kept."""
    unpacked: tuple[Any, ...] | None = getattr(node, "unpacked", None)
    if unpacked is not None:
        return unpacked
    x, *rest = node.saved_tensors
    if x is None and node.reads_x:
        x = node.source.recompute().to(node.dtype)
    return x, *rest


def _joined(factors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return all A stacked, (ranks, in), and all B in a chain."""
    downs, ups = factors[0::2], factors[1::2]
    if len(downs) == 1:
        return downs[0], ups[0].reshape(-1)
    return torch.cat(list(downs)), torch.cat([b.reshape(-1) for b in ups])


def _parted(joined: Tensor, factors: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor | None]:
    """Cut the gradient of joined factors into those of the single ones."""
    if not any(needed):
        return [None] * len(factors)
    pieces = joined.view(-1).split([factor.numel() for factor in factors])
    return [
        piece.view(factor.shape).to(factor.dtype) if wanted else None
        for piece, factor, wanted in zip(pieces, factors, needed, strict=True)
    ]


def kernels() -> Iterator[Kernel]:
    """Every kernel in every configuration."""
    yield from product.kernels()
    yield from thin.kernels()
