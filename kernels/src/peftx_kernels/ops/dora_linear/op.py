"""DoRA from library calls: ``lora_linear``, then one pass over its output that also remembers nothing but itself.

With L = x W^T + s x A^T B^T + bias (``lora_linear``) and c = (1 - g) bias:

Forward     Y = g L + c, in place of L                      (g = 1 gives c = 0 and exactly L)
Backward    dL = g dY;  dm = sum_t dY (L - bias) / norm = (sum_t dY Y - bias sum_t dY) / m      (g norm = m)

So the backward pass needs no L: Y will do, and Y is kept by the next layer in most models (attention keeps the q, k, v
it is given, GELU its input). Two things break that identity, and both are handled: a gate near 0, which cannot be
divided by (L is kept instead), and a Y that the model changed in place (L is computed again; autograd's own check does
not see every case, so the version of Y is compared here). Inside an activation checkpoint, where nothing can be read
twice and what is kept lives briefly, L is kept.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from peftx_kernels.activation import ActivationSource
from peftx_kernels.context import autocast_off, is_checkpointing, is_tracing
from peftx_kernels.ops.dora_linear.norm import dora_norm, row_sq
from peftx_kernels.ops.lora_linear.op import lora_linear, recompute_product

__all__ = ["check_shapes", "dora_linear", "dora_norm", "smallest_gate"]

# Dividing by a gate g scales the rounding of y by 1 / g: below these, the unscaled product is kept instead.
_SMALLEST_GATE = {torch.float64: 1e-3, torch.float32: 1e-2}
_SMALLEST_GATE_HALF = 0.25
_BLOCK = 1 << 22  # entries that are widened at once in a sum over half-precision maps: 16 MiB


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
    check_shapes(weight, magnitude, norm)
    if norm is None:
        norm = dora_norm(row_sq(weight) if weight_sq is None else weight_sq, weight, a, b, scale)
    tracing = is_tracing()
    inner = lora_linear(
        x, weight, bias, a, b, scale, dropout=dropout, training=training, source=None if tracing else source
    )
    if not tracing:
        y = _RowScale.apply(inner, magnitude, norm, bias)
        if y.grad_fn is not None:
            y.grad_fn.version = y._version
        return y
    gate = magnitude.to(norm.dtype) / norm
    y = gate * inner
    if bias is not None:
        y = y + (1 - gate) * bias
    return y.to(inner.dtype)


def check_shapes(weight: Tensor, magnitude: Tensor, norm: Tensor | None) -> None:
    """Raise ValueError where there is not one magnitude, and one norm if any, for every row."""
    for name, given in (("magnitude", magnitude), ("norm", norm)):
        if given is not None and given.shape != weight.shape[:1]:
            raise ValueError(
                f"{name} has shape {tuple(given.shape)}; a weight {tuple(weight.shape)} needs ({weight.shape[0]},)"
            )


def smallest_gate(dtype: torch.dtype) -> float:
    """Return the smallest gate that an output of that type is divided by: 1 / g is how rounding is scaled."""
    return _SMALLEST_GATE.get(dtype, _SMALLEST_GATE_HALF)


class _RowScale(torch.autograd.Function):
    """apply(inner, magnitude, norm, bias) -> g inner + (1 - g) bias, written into inner; g = magnitude / norm."""

    @staticmethod
    def forward(ctx: Any, inner: Tensor, magnitude: Tensor, norm: Tensor, bias: Tensor | None) -> Tensor:
        needs_magnitude = ctx.needs_input_grad[1]
        with autocast_off(inner):
            gate = magnitude.to(norm.dtype) / norm
            ctx.kept_inner = needs_magnitude and (is_checkpointing() or not _divisible(gate, inner.dtype))
            y = torch.empty_like(inner) if ctx.kept_inner else inner
            if bias is None:
                torch.mul(inner, gate, out=y)
            else:
                torch.addcmul(torch.addcmul(bias, bias, gate, value=-1), inner, gate, out=y)
        if ctx.kept_inner:
            ctx.save_for_backward(inner, gate, norm, bias)
        else:
            ctx.mark_dirty(inner)
            ctx.save_for_backward(y if needs_magnitude else None, gate, magnitude, bias)
        ctx.node = inner.grad_fn
        ctx.magnitude, ctx.magnitude_version = magnitude, magnitude._version
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs_inner, needs_magnitude, _, needs_bias = ctx.needs_input_grad
        value, gate, divisor, bias = _kept(ctx)
        d_inner = d_magnitude = d_bias = None
        with autocast_off(grad):
            d_y = grad.reshape(-1, grad.shape[-1])
            if needs_magnitude:
                dot, d_inner = _column_dot(d_y, value.reshape(d_y.shape), gate.dtype)
                if bias is not None:
                    dot = torch.addcmul(dot, bias, d_y.sum(0, dtype=gate.dtype), value=-1)
                d_magnitude = (dot / divisor).to(ctx.magnitude.dtype)
            if needs_inner:
                d_inner = torch.empty_like(d_y) if d_inner is None else d_inner
                d_inner = torch.mul(d_y, gate, out=d_inner).view(grad.shape)
            if needs_bias:
                d_bias = ((1 - gate) * d_y.sum(0, dtype=gate.dtype)).to(grad.dtype)
        return d_inner, d_magnitude, None, d_bias


def _divisible(gate: Tensor, dtype: torch.dtype) -> bool:
    """Return whether every gate can be divided by; trained ones lie near 1, so negative ones are not told apart."""
    return gate.is_meta or gate.min().item() >= smallest_gate(dtype)


def _column_dot(d_y: Tensor, value: Tensor, high: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return sum_t d_y * value in ``high``, and the [T, out] buffer the product was in where it can be used again."""
    if d_y.dtype == high:
        buffer = d_y * value
        return buffer.sum(0), buffer
    total = torch.zeros(d_y.shape[1], dtype=high, device=d_y.device)
    rows = max(1, _BLOCK // max(1, d_y.shape[1]))  # widened copies of half-precision maps, a block at a time
    for d_block, block in zip(d_y.split(rows), value.split(rows), strict=True):
        total += d_block.to(high).mul_(block).sum(0)
    return total, None


def _kept(ctx: Any) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Return (value, gate, divisor, bias) with dm = (sum_t dY value - bias sum_t dY) / divisor.

    value is L and the divisor the norm, or value is Y and the divisor g norm = m.
    """
    try:
        value, gate, divisor, bias = ctx.saved_tensors
    except (
        RuntimeError
    ):  # y was changed in place, which a plain linear map allows; or freed: then this raises again
        return _recomputed(ctx)
    # Under saved-tensor hooks autograd does not compare versions, and `value` may be y as it is now.
    if value is not None and not ctx.kept_inner and value._version > ctx.version:
        return _recomputed(ctx)
    return value, gate, divisor, bias


def _recomputed(ctx: Any) -> tuple[Tensor, Tensor, Tensor, None]:
    """Compute L without its bias, gate and norm again from what the node of ``lora_linear`` kept: the slow way out.

    Raises:
        RuntimeError: autograd's own, or where nothing was kept to compute it from.
    """
    node = ctx.node
    if node is None or not node.reads_x or ctx.magnitude._version != ctx.magnitude_version:
        raise RuntimeError(
            "the output of dora_linear was changed in place and cannot be computed again for the gradient of its "
            "magnitude; change a copy of it instead (for example relu in place of relu_)"
        )
    _, _, weight, a, b = node.saved_tensors
    norm = dora_norm(row_sq(weight), weight, a, b, node.plan.scale)
    return recompute_product(node), ctx.magnitude.detach().to(norm.dtype) / norm, norm, None
