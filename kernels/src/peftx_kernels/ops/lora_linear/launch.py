"""The two passes of ``lora_linear`` as launches of kernels, and as operations that a compiler sees.

    forward     S = scale (mask * X) A^T;  Y = [g] (X W^T + S_p B_p^T + bias)               two launches
    backward    dS, dB from one pass over dY;  dX = dY W + mask * (dS A);  dA = dS^T (mask * X)

Three products go to the library instead where it is faster by the cost model: those with W when the sum is longer than
`LONGEST` (then the low-rank term is added in place), thin ones of ranks that make them large, without dropout, and
those of dY at ranks whose partial sums would weigh as much as a second pass.
"""

from __future__ import annotations

import math

from torch import Tensor

from peftx_kernels.context import own_linear
from peftx_kernels.ops.lora_linear.calls import (
    add_or_multiply,
    down_gradient,
    flat,
    output_gradients,
    project,
)
from peftx_kernels.raw_op import raw_op

__all__ = ["LONGEST", "lora_added", "lora_backward", "lora_forward"]

LONGEST = 2048
"""The longest sum for which our product with a free epilogue beats the library's, 15 % to 20 % faster, and two passes
over the output. An estimate from the cost model, not measured."""


def _no_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    a: Tensor,
    b: Tensor,
    gate: Tensor | None,
    seed: Tensor | None,
    layout: list[int],
    scales: list[float],
    rate: float,
) -> tuple[Tensor, Tensor]:
    s = x.new_empty((math.prod(x.shape[:-1]), a.shape[0]))
    return x.new_empty((*x.shape[:-1], weight.shape[0])), s


@raw_op(
    "lora_forward",
    "(Tensor x, Tensor weight, Tensor? bias, Tensor a, Tensor b, Tensor? gate, Tensor? seed, int[] layout, "
    "float[] scales, float rate) -> (Tensor, Tensor)",
    _no_forward,
)
def lora_forward(
    x: Tensor,  # (..., in)
    weight: Tensor,  # (out, in)
    bias: Tensor | None,  # (out,)
    a: Tensor,  # (ranks, in), all A stacked
    b: Tensor,  # all B in a chain
    gate: Tensor | None,  # (out,) fp32
    seed: Tensor | None,  # () int64, on the CPU
    layout: list[int],
    scales: list[float],
    rate: float,
) -> tuple[Tensor, Tensor]:
    """Return (L, S) with L = x W^T + corrections + bias; with a gate g, (g L + (1 - g) bias, S)."""
    rows = flat(x)
    places = tuple(layout)
    s = x.new_empty((rows.shape[0], a.shape[0]))
    if rows.shape[0]:
        project(rows, a.to(x.dtype), s, seed, places, tuple(scales), rate)
    return lora_added(x, weight, bias, s, b, gate, places), s


def lora_added(
    x: Tensor,  # (..., in)
    weight: Tensor,  # (out, in)
    bias: Tensor | None,  # (out,)
    s: Tensor,  # (T, ranks), with the scales
    b: Tensor,  # all B in a chain
    gate: Tensor | None,  # (out,) fp32
    places: tuple[int, ...],
) -> Tensor:
    """Return L = x W^T + S_p B_p^T + bias; with a gate g, g L + (1 - g) bias."""
    out, width = weight.shape
    given = width > LONGEST
    y = own_linear(x, weight, bias) if given else x.new_empty((*x.shape[:-1], out))
    if not y.numel():
        return y
    add_or_multiply(
        None if given else flat(x),
        None if given else weight,
        y,
        s,
        b.to(x.dtype),
        places,
        by_rank=True,
        bias=bias,
        gate=gate,
    )
    return y


def _no_backward(
    d_y: Tensor,
    x: Tensor | None,
    s: Tensor | None,
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    seed: Tensor | None,
    layout: list[int],
    scales: list[float],
    rate: float,
    needs_x: bool,
    needs_a: bool,
    needs_b: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    d_x = d_y.new_empty((*d_y.shape[:-1], weight.shape[1]) if needs_x else (0,))
    return d_x, a.new_empty(a.shape if needs_a else (0,)), b.new_empty(b.shape if needs_b else (0,))


@raw_op(
    "lora_backward",
    "(Tensor d_y, Tensor? x, Tensor? s, Tensor weight, Tensor a, Tensor b, Tensor? seed, int[] layout, "
    "float[] scales, float rate, bool needs_x, bool needs_a, bool needs_b) -> (Tensor, Tensor, Tensor)",
    _no_backward,
)
def lora_backward(
    d_y: Tensor,  # (..., out)
    x: Tensor | None,  # (..., in), for d_a
    s: Tensor | None,  # (T, ranks), for d_b
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    seed: Tensor | None,
    layout: list[int],
    scales: list[float],
    rate: float,
    needs_x: bool,
    needs_a: bool,
    needs_b: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, of the stacked A and of the chained B; those not needed are empty."""
    rows = flat(d_y)
    width = weight.shape[1]
    d_a = a.new_zeros(a.shape if needs_a else (0,))
    d_b = b.new_zeros(b.shape if needs_b else (0,))
    given = rows @ weight if needs_x and weight.shape[0] > LONGEST else None
    if given is not None:
        d_x = given.view(*d_y.shape[:-1], width)
    else:
        d_x = d_y.new_empty((*d_y.shape[:-1], width) if needs_x else (0,))
    if not rows.shape[0]:
        return d_x, d_a, d_b
    places, factors = tuple(layout), tuple(scales)
    d_s, d_b = output_gradients(rows, s, b, d_b, places, factors, needs_x or needs_a, needs_b)
    if needs_x:
        add_or_multiply(
            rows if given is None else None,
            weight.t() if given is None else None,
            d_x,
            d_s,
            a.to(rows.dtype),
            (0, width, 0, a.shape[0], 0),  # all of A is one part
            by_rank=False,
            seed=seed,
            rate=rate,
        )
    if needs_a:
        assert x is not None
        d_a = down_gradient(flat(x), d_s, a, seed, rate)
    return d_x, d_a, d_b
