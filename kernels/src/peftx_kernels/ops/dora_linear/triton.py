"""``dora_linear`` as Triton kernels: the gate in the epilogue of LoRA's product, the row lengths without a question.

    forward     n (three launches); g = m / n;  Y = g L + (1 - g) bias, as L = x W^T + ... + bias leaves its accumulator
    backward    dL = g dY and dm from one pass over dY and Y; the rest is that of ``lora_linear``, from dL

L is never written. Kept for the backward pass: what ``lora_linear`` keeps (x and S also where only m needs them), g, n,
and Y itself, which the next layer mostly keeps anyway. Where Y was changed in place since, L is computed again.

Two nodes of autograd share the work, so that a Y that cannot be read leaves x and S to be read: the product's, and
before it one for the gate, which asks the other for x. A compiler gets one node, for it changes nothing in place.

Left to the eager form: what ``lora_linear`` leaves to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from peftx_kernels.activation import ActivationSource
from peftx_kernels.aot import Kernel
from peftx_kernels.context import autocast_off, compute_dtype, is_tracing
from peftx_kernels.dropout import check_rate, kept_fraction
from peftx_kernels.ops.dora_linear import gates, lengths, op
from peftx_kernels.ops.dora_linear.launch import dora_gradients, dora_lengths
from peftx_kernels.ops.dora_linear.norm import row_sq
from peftx_kernels.ops.lora_linear.calls import flat
from peftx_kernels.ops.lora_linear.launch import lora_added, lora_backward, lora_forward
from peftx_kernels.ops.lora_linear.parts import Row, layout_of, rows_of
from peftx_kernels.ops.lora_linear.triton import FEWEST, corrected, given_back, runs_here

__all__ = ["dora_linear", "dora_norm", "fits", "kernels"]


def dora_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    magnitude: Tensor,
    scale: float,
    *,
    weight_sq: Tensor | None = None,
    norm: Tensor | None = None,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:
    """See ``peftx_kernels.dora_linear``."""
    check_rate(dropout)
    op.check_shapes(weight, magnitude, norm)
    parts = ((0, weight.shape[0], a, b, scale),)
    rate = dropout if training else 0.0
    rows = rows_of(weight, parts, kept_fraction(rate) if rate > 0 else 1.0)
    if not runs_here(x, weight):
        return op.dora_linear(
            x,
            weight,
            bias,
            a,
            b,
            magnitude,
            scale,
            weight_sq=weight_sq,
            norm=norm,
            dropout=dropout,
            training=training,
            source=source,
        )
    if norm is None:
        norm = dora_norm(row_sq(weight) if weight_sq is None else weight_sq, weight, a, b, scale)
    norm = norm.float()
    if is_tracing():
        seed = torch.randint(1 << 62, ()) if rate > 0 else None
        y: Tensor = _Traced.apply(x, weight, bias, a, b, magnitude, norm, seed, rows[0], rate)
        return y
    with torch.no_grad():
        gate = magnitude.float() / norm
    wanted = gate.detach().requires_grad_(torch.is_grad_enabled() and magnitude.requires_grad)
    y = corrected(x, weight, bias, parts, rate, source, wanted)
    if y.grad_fn is None:
        return y
    y = _Gate.apply(y, magnitude, gate, norm, bias)
    y.grad_fn.version = y._version  # type: ignore[union-attr]
    return y


def dora_norm(weight_sq: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """See ``peftx_kernels.dora_norm``."""
    if not runs_here(weight, weight) or weight.dtype not in _TYPES:
        return op.dora_norm(weight_sq, weight, a, b, scale)
    arguments = (weight_sq, _readable(weight), a, b)
    norm: Tensor = dora_lengths(*(t.detach() for t in arguments), float(scale))
    return norm


_TYPES = (torch.float32, torch.bfloat16, torch.float16)
_EXACT = 64
"""The highest rank at which exact products of an fp32 weight, read once, beat the library's and a question to the
device: an estimate from the cost model, not measured."""


def _readable(weight: Tensor) -> Tensor:
    """Return the matrix with one stride of 1, and places that fit into 32 bits from the start of a row."""
    far = weight.stride(1) != 1 and weight.numel() >= 1 << 31
    return weight if 1 in weight.stride() and not far else weight.contiguous()


def fits(name: str, *given: Any, **options: Any) -> bool:
    """Return whether the kernels are for this call: on a GPU; the layer in half precision, from a size on."""
    if name == "dora_norm":
        weight, a = given[1:3]
        runs = weight.is_cuda and runs_here(weight, weight) and weight.dtype in _TYPES
        return runs and (weight.dtype is not torch.float32 or a.shape[0] <= _EXACT)
    x, weight = given[:2]
    if not x.is_cuda or not runs_here(x, weight) or compute_dtype(x) is torch.float32:
        return False
    out, width = weight.shape
    # the library's product also where it is faster: the gate saves a pass over the output in any case
    return out % 16 == 0 and width % 16 == 0 and x.numel() * out >= FEWEST


class _Gate(torch.autograd.Function):
    """apply(y, magnitude, gate, norm, bias) -> y, which is gated already: the backward pass of the gate."""

    @staticmethod
    def forward(
        ctx: Any, y: Tensor, magnitude: Tensor, gate: Tensor, norm: Tensor, bias: Tensor | None
    ) -> Tensor:
        ctx.mark_dirty(y)
        ctx.node, ctx.gate, ctx.norm = y.grad_fn, gate, norm
        ctx.magnitude_dtype, ctx.bias_dtype = magnitude.dtype, None if bias is None else bias.dtype
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(y, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs_y, needs_magnitude, _, _, needs_bias = ctx.needs_input_grad
        y = bias = x = s = weight = b = None
        gated = True
        with autocast_off(grad):
            if needs_magnitude:
                x, s, weight, _, _, b = given_back(ctx.node)
                y, bias = _kept(ctx)
                gated = y is not None
                if y is None:
                    y = _ungated(ctx.node, x, s, weight, b)
            d_y, d_m, total = _gradients(
                grad, y, gated, ctx.gate, ctx.norm, bias, x, s, weight, b, needs_y, needs_bias
            )
            d_bias = ((1 - ctx.gate) * total).to(ctx.bias_dtype) if needs_bias else None
        d_magnitude = d_m.to(ctx.magnitude_dtype) if needs_magnitude else None
        return d_y if needs_y else None, d_magnitude, None, None, d_bias


def _kept(ctx: Any) -> tuple[Tensor | None, Tensor | None]:
    """Return (Y, bias), or nothing where Y was changed in place, which a plain linear map allows."""
    try:
        y, bias = ctx.saved_tensors
    except RuntimeError:
        return None, None
    # Under saved-tensor hooks autograd does not compare versions, and `y` may be what it is now.
    return (None, None) if y._version > ctx.version else (y, bias)


def _ungated(node: Any, x: Tensor, s: Tensor, weight: Tensor, b: Tensor) -> Tensor:
    """Compute L without its bias again, from what the product's node gave back."""
    return lora_added(x, weight.to(x.dtype), None, s, b.reshape(-1), None, node.layout)


def _gradients(
    grad: Tensor,
    y: Tensor | None,
    gated: bool,
    gate: Tensor,
    norm: Tensor,
    bias: Tensor | None,
    x: Tensor | None,
    s: Tensor | None,
    weight: Tensor | None,
    b: Tensor | None,
    needs_y: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    bias = None if bias is None else bias.to(grad.dtype)
    weight = None if y is None or weight is None else _readable(weight)
    smallest = op.smallest_gate(grad.dtype)
    found: tuple[Tensor, Tensor, Tensor] = dora_gradients(
        grad, y, gated, gate, norm, bias, x, s, weight, b, smallest, needs_y, needs_bias
    )
    return found


class _Traced(torch.autograd.Function):
    """apply(x, weight, bias, a, b, magnitude, norm, seed, row, rate) -> y: one node for all of it."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        a: Tensor,
        b: Tensor,
        magnitude: Tensor,
        norm: Tensor,
        seed: Tensor | None,
        row: Row,
        rate: float,
    ) -> Tensor:
        run = compute_dtype(x)
        layout = layout_of((row,))
        with autocast_off(x):
            gate = magnitude.float() / norm
            x_run = x.to(run)
            bias_run = None if bias is None else bias.to(run)
            y, s = lora_forward(
                x_run, weight.to(run), bias_run, a, b.reshape(-1), gate, seed, layout, [row.scale], rate
            )
        _, needs_weight, _, needs_a, needs_b, needs_m, *_ = ctx.needs_input_grad
        keep_x, keep_s = needs_m or needs_weight or needs_a, needs_m or needs_b
        ctx.save_for_backward(
            x_run if keep_x else None,
            s if keep_s else None,
            y if needs_m else None,
            weight,
            bias,
            a,
            b,
            magnitude,
            norm,
            seed,
        )
        ctx.layout, ctx.scale, ctx.rate, ctx.run, ctx.x_dtype = layout, row.scale, rate, run, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, s, y, weight, bias, a, b, magnitude, norm, seed = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, needs_a, needs_b, needs_m, *_ = ctx.needs_input_grad
        with autocast_off(grad):
            gate = magnitude.float() / norm
            d_l, d_m, total = _gradients(grad, y, True, gate, norm, bias, x, s, weight, b, True, needs_bias)
            d_x, d_a, d_b = lora_backward(
                d_l,
                x,
                s,
                weight.to(ctx.run),
                a,
                b.reshape(-1),
                seed,
                ctx.layout,
                [ctx.scale],
                ctx.rate,
                needs_x,
                needs_a,
                needs_b,
            )
            return (
                d_x.to(ctx.x_dtype) if needs_x else None,
                (flat(d_l).t() @ flat(x)).to(weight.dtype) if needs_weight else None,
                total.to(bias.dtype) if needs_bias else None,
                d_a if needs_a else None,
                d_b.view(b.shape) if needs_b else None,
                d_m.to(magnitude.dtype) if needs_m else None,
                *(None,) * 4,
            )


def kernels() -> Iterator[Kernel]:
    """Every kernel in every configuration; the product is that of ``lora_linear``."""
    yield from lengths.kernels()
    yield from gates.kernels()
