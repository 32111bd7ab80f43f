"""Kernels for the backward pass of the gate, with its two inputs read once.

    gate_pass    dL = g dY;  in shares of the rows: sum_t dY Y, sum_t dY
    settle       dm = (sum_t dY Y - bias sum_t dY) / (g norm)

Y stands for L = x W^T + ... + bias here, since Y - bias = g (L - bias). A gate near zero cannot be divided
by: those columns of L - bias are computed again from x, in `settle`, where usually none is found. The host never asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import triton
import triton.language as tl

from peftx_kernels.aot import Kernel
from peftx_kernels.arithmetic import dot, rounded

__all__ = ["SETTLE", "Pass", "configuration", "gate_pass", "kernels", "settle"]


@triton.jit(do_not_specialize=["rows", "share"])
def gate_pass(  # type: ignore[no-untyped-def]
    d_y,  # (rows, out)
    y,  # (rows, out), contiguous, or None
    gate,  # (out,) fp32
    d_l,  # (rows, out), contiguous, or None
    dots,  # (shares, out) fp32, or None
    totals,  # (shares, out) fp32, or None
    rows,
    out,
    share,
    d_y_row,
    BLOCK_T: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """A block of columns over one share of the rows."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    t = tl.arange(0, BLOCK_T)
    part = tl.program_id(1)
    first = part * share
    last = min(first + share, rows)
    g = tl.load(gate + n, mask=n < out, other=0.0)
    d_y += first.to(tl.int64) * d_y_row
    corner = first.to(tl.int64) * out
    product = tl.zeros((BLOCK_N,), tl.float32)
    total = tl.zeros((BLOCK_N,), tl.float32)
    for t0 in range(first, last, BLOCK_T):
        mine = (t[:, None] < last - t0) & (n[None, :] < out)
        at = t[:, None] * out + n[None, :]
        dy = tl.load(d_y + (t[:, None] * d_y_row + n[None, :]), mask=mine, other=0.0).to(tl.float32)
        if d_l is not None:
            tl.store(d_l + corner + at, rounded(dy * g[None, :], d_l.dtype.element_ty), mask=mine)
        if y is not None:
            product += tl.sum(dy * tl.load(y + corner + at, mask=mine, other=0.0).to(tl.float32), 0)
        if totals is not None:
            total += tl.sum(dy, 0)
        d_y += BLOCK_T * d_y_row
        corner += BLOCK_T * out
    if y is not None:
        tl.store(dots + part.to(tl.int64) * out + n, product, mask=n < out)
    if totals is not None:
        tl.store(totals + part.to(tl.int64) * out + n, total, mask=n < out)


@triton.jit(do_not_specialize=["rows", "parts"])
def settle(  # type: ignore[no-untyped-def]
    dots,  # (parts, out) fp32
    totals,  # (parts, out) fp32, or None
    bias,  # (out,) or None
    gate,  # (out,) fp32; None where `dots` are of L - bias itself
    norm,  # (out,) fp32
    d_magnitude,  # (out,) fp32
    x,  # (rows, width)
    weight,  # (out, width) by the two strides, of any type
    s,  # (rows, ranks), contiguous
    b,  # (out, ranks), contiguous, of any type
    d_y,  # (rows, out)
    smallest,  # the smallest gate that is divided by
    rows,
    out,
    width,
    ranks,
    parts,
    x_row,
    weight_row,
    weight_column,
    d_y_row,
    BLOCK_N: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """The gradients of a block of magnitudes."""
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    length = tl.load(norm + n, mask=n < out, other=1.0)
    product = tl.zeros((BLOCK_N,), tl.float32)
    for _ in range(parts):
        product += tl.load(dots + n, mask=n < out, other=0.0)
        dots += out
    if totals is not None:
        total = tl.zeros((BLOCK_N,), tl.float32)
        for _ in range(parts):
            total += tl.load(totals + n, mask=n < out, other=0.0)
            totals += out
        product -= total * tl.load(bias + n, mask=n < out, other=0.0).to(tl.float32)
    result = product / length
    if gate is not None:
        g = tl.load(gate + n, mask=n < out, other=1.0)
        bad = tl.abs(g) < smallest
        result /= tl.where(bad, 1.0, g)
        if tl.max(bad.to(tl.int32), 0) > 0:
            t = tl.arange(0, BLOCK_T)
            k = tl.arange(0, BLOCK_K)
            r = tl.arange(0, BLOCK_R)
            ws = weight + n[None, :].to(tl.int64) * weight_row
            product = tl.zeros((BLOCK_N,), tl.float32)
            for t0 in range(0, rows, BLOCK_T):
                here = t[:, None] < rows - t0
                inner = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
                for k0 in range(0, width, BLOCK_K):
                    at = x + t[:, None] * x_row + (k0 + k)[None, :]
                    xt = tl.load(at, mask=here & (k[None, :] < width - k0), other=0.0)
                    at = ws + ((k0 + k) * weight_column)[:, None]
                    wt = tl.load(at, mask=bad[None, :] & (k[:, None] < width - k0), other=0.0)
                    inner = dot(xt, rounded(wt.to(tl.float32), xt.dtype), inner)
                for r0 in range(0, ranks, BLOCK_R):
                    at = s + t[:, None] * ranks + (r0 + r)[None, :]
                    st = tl.load(at, mask=here & (r[None, :] < ranks - r0), other=0.0)
                    at = b + n[None, :] * ranks + (r0 + r)[:, None]
                    bt = tl.load(at, mask=bad[None, :] & (r[:, None] < ranks - r0), other=0.0)
                    inner = dot(st, rounded(bt.to(tl.float32), st.dtype), inner)
                dy = tl.load(d_y + t[:, None] * d_y_row + n[None, :], mask=here & bad[None, :], other=0.0)
                product += tl.sum(dy.to(tl.float32) * inner, 0)
                x += BLOCK_T * x_row
                s += BLOCK_T * ranks
                d_y += BLOCK_T * d_y_row
            result = tl.where(bad, product / length, result)
    tl.store(d_magnitude + n, result, mask=n < out)


class Pass(NamedTuple):
    """A configuration of `gate_pass`: the block of rows and columns, and warps."""

    t: int
    n: int
    warps: int


_EVEN = Pass(32, 128, 4)
_UNEVEN = Pass(16, 64, 4)

#: blocks of `settle`
SETTLE = {"BLOCK_N": 16, "BLOCK_T": 64, "BLOCK_K": 16, "BLOCK_R": 16}


def configuration(*, even: bool) -> Pass:
    """Return the blocks of `gate_pass`: an estimate from the cost model, not measured.

    `even`: all row lengths are multiples of 16; where they are not, every entry needs an address of its own.
    """
    return _EVEN if even else _UNEVEN


def kernels() -> Iterator[Kernel]:
    """Every configuration in every type, with all that they can do."""
    for dtype in ("bf16", "fp16", "fp32"):
        for at in (_EVEN, _UNEVEN) if dtype == "bf16" else (_EVEN,):
            wide = f"*{dtype}"
            types = {"d_y": wide, "y": wide, "gate": "*fp32", "d_l": wide, "dots": "*fp32", "totals": "*fp32"}
            types |= dict.fromkeys(("rows", "out", "share", "d_y_row"), "i32")
            constants = {"BLOCK_T": at.t, "BLOCK_N": at.n}
            yield _kernel(gate_pass, types, constants, at.warps, even=at is _EVEN)
        yield _settle(dtype, dtype, even=True)
    yield _settle("bf16", "bf16", even=False)
    yield _settle("bf16", "fp32", even=True)


def _settle(dtype: str, stored: str, *, even: bool) -> Kernel:
    """`stored`: the type of W and B."""
    wide = f"*{dtype}"
    types = {"dots": "*fp32", "totals": "*fp32", "bias": wide, "gate": "*fp32", "norm": "*fp32"}
    types |= {"d_magnitude": "*fp32", "x": wide, "weight": f"*{stored}", "s": wide, "b": f"*{stored}"}
    types |= {"d_y": wide, "smallest": "fp32"}
    sizes = ("rows", "out", "width", "ranks", "parts", "x_row", "weight_row", "weight_column", "d_y_row")
    types |= dict.fromkeys(sizes, "i32")
    return _kernel(settle, types, {"weight_column": 1, **SETTLE}, 4, even=even)


def _kernel(
    function: object, types: dict[str, str], constants: dict[str, int], warps: int, *, even: bool
) -> Kernel:
    divisible = [key for key, kind in types.items() if kind.startswith("*")]
    divisible += [key for key in ("out", "width", "x_row", "weight_row", "d_y_row") if key in types]
    types = types | dict.fromkeys(constants, "constexpr")
    return Kernel(function, types, dict(constants), tuple(divisible) if even else (), warps, 2)
