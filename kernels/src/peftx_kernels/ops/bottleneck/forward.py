"""The forward pass in one kernel: a block of rows goes down into registers, through the activation, and up again.

    fold        Wc = Wd gamma less the mean of each row;  b = bd + Wd beta      thin, only with a norm
    draw        the mask of dropout                                             thin, only with dropout
    forward     U = rstd (H - shift) Wc^T + b;  O = R + s (mask f(U) Wu^T + bu)

H is read once from memory; where R is H its second reading finds it in the cache. The norm needs no pass of its own:
with the rows of Wc centred, what is taken off a row of H does not matter, and its mean and deviation come from the same
tiles. Taken off is the mean of the row's first tile, so that nothing cancels where the mean is many deviations.
"""

from __future__ import annotations

import triton
import triton.language as tl

from peftx_kernels.arithmetic import dot, rounded
from peftx_kernels.ops.bottleneck.activations import activated
from peftx_kernels.ops.lora_linear.mask import keep

__all__ = ["draw", "fold", "forward"]


@triton.jit
def fold(  # type: ignore[no-untyped-def]
    down,  # (units, width)
    down_bias,  # (units,) or None
    gamma,  # (width,) or None
    beta,  # (width,) or None
    centred,  # (units, width)
    bias,  # (units,) fp32
    units,
    width,
    BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Some rows of Wc, and their b."""
    k = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    j = tl.arange(0, BLOCK_D)
    unit = k < units
    at = k[:, None] * width + j[None, :]
    total = tl.zeros((BLOCK_M,), tl.float32)
    shift = tl.zeros((BLOCK_M,), tl.float32)
    for j0 in range(0, width, BLOCK_D):
        column = j < width - j0
        w = tl.load(down + j0 + at, mask=unit[:, None] & column[None, :], other=0.0).to(tl.float32)
        if beta is not None:
            shift += tl.sum(w * tl.load(beta + j0 + j, mask=column, other=0.0).to(tl.float32)[None, :], 1)
        if gamma is not None:
            w *= tl.load(gamma + j0 + j, mask=column, other=0.0).to(tl.float32)[None, :]
        total += tl.sum(w, 1)
    mean = total / width
    for j0 in range(0, width, BLOCK_D):
        column = j < width - j0
        within = unit[:, None] & column[None, :]
        w = tl.load(down + j0 + at, mask=within, other=0.0).to(tl.float32)
        if gamma is not None:
            w *= tl.load(gamma + j0 + j, mask=column, other=0.0).to(tl.float32)[None, :]
        tl.store(centred + j0 + at, rounded(w - mean[:, None], centred.dtype.element_ty), mask=within)
    if down_bias is not None:
        shift += tl.load(down_bias + k, mask=unit, other=0.0).to(tl.float32)
    tl.store(bias + k, shift, mask=unit)


@triton.jit(do_not_specialize=["rows", "dropped"])
def draw(  # type: ignore[no-untyped-def]
    seed,  # one int64
    mask,  # (rows, units)
    rows,
    units,
    dropped,  # of 65536
    kept,  # the fraction that is kept
    BLOCK_T: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """A block of rows of the mask: 0 where a hidden value is dropped, 1 / kept elsewhere."""
    t = tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)
    k = tl.arange(0, BLOCK_M)
    value = tl.where(keep(tl.load(seed), dropped, t, 0, BLOCK_T, BLOCK_M), 1 / kept, 0.0)
    at = t.to(tl.int64)[:, None] * units + k[None, :]
    tl.store(mask + at, value.to(mask.dtype.element_ty), mask=(t < rows)[:, None] & (k < units)[None, :])


@triton.jit(do_not_specialize=["rows"])
def forward(  # type: ignore[no-untyped-def]
    h,  # (rows, width), contiguous
    residual,  # (rows, width), contiguous; h itself; or None
    down,  # (units, width)
    bias,  # (units,) fp32, or None
    up,  # (width, units)
    up_bias,  # (width,) or None
    learned,  # one value, or None
    mask,  # (rows, units), or None
    o,  # (rows, width)
    u,  # (rows, units)
    statistics,  # (2, rows) fp32: means, 1 / deviations; or None
    rows,
    width,
    steps,  # units / STEP, so that the compiler knows what units are a multiple of
    scale,
    eps,
    STEP: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """A block of rows of O, U and the statistics."""
    units = steps * STEP
    t0 = tl.program_id(0) * BLOCK_T
    t = tl.arange(0, BLOCK_T)
    j = tl.arange(0, BLOCK_D)
    k = tl.arange(0, BLOCK_M)
    row = t < rows - t0
    unit = k < units
    # 64 bits reach the block of rows, 32 go on from there
    corner = t0.to(tl.int64) * width
    at = t[:, None] * width + j[None, :]

    acc = tl.zeros((BLOCK_T, BLOCK_M), tl.float32)
    if statistics is not None:
        x = tl.load(h + corner + at, mask=row[:, None] & (j[None, :] < width), other=0.0).to(tl.float32)
        shift = tl.sum(x, 1) / min(width, BLOCK_D)
        total = tl.zeros((BLOCK_T,), tl.float32)
        squares = tl.zeros((BLOCK_T,), tl.float32)
    for j0 in range(0, width, BLOCK_D):
        within = row[:, None] & (j[None, :] < width - j0)
        x = tl.load(h + corner + j0 + at, mask=within, other=0.0)
        if statistics is not None:
            x = tl.where(within, x.to(tl.float32) - shift[:, None], 0.0)
            total += tl.sum(x, 1)
            squares += tl.sum(x * x, 1)
        w = tl.load(
            down + j0 + (k[None, :] * width + j[:, None]),
            mask=unit[None, :] & (j[:, None] < width - j0),
            other=0.0,
        )
        acc = dot(rounded(x.to(tl.float32), w.dtype), w, acc)
    if statistics is not None:
        total /= width
        rstd = 1 / tl.sqrt_rn(squares / width - total * total + eps)
        acc *= rstd[:, None]
        tl.store(statistics + t0 + t, shift + total, mask=row)
        tl.store(statistics + rows + t0 + t, rstd, mask=row)
    if bias is not None:
        acc += tl.load(bias + k, mask=unit, other=0.0)[None, :]

    thin = rounded(acc, u.dtype.element_ty)  # the backward pass sees these digits, so the activation does
    hidden = t0.to(tl.int64) * units + (t[:, None] * units + k[None, :])
    tl.store(u + hidden, thin, mask=row[:, None] & unit[None, :])
    v = activated(thin.to(tl.float32), ACTIVATION)
    if mask is not None:
        v *= tl.load(mask + hidden, mask=row[:, None] & unit[None, :], other=0.0).to(tl.float32)
    v = rounded(v, up.dtype.element_ty)
    if learned is not None:
        scale = tl.load(learned).to(tl.float32)
    for j0 in range(0, width, BLOCK_D):
        column = j < width - j0
        w = tl.load(
            up + j0 * units + (j[None, :] * units + k[:, None]),
            mask=column[None, :] & unit[:, None],
            other=0.0,
        )
        y = dot(v, w, tl.zeros((BLOCK_T, BLOCK_D), tl.float32))
        if up_bias is not None:
            y += tl.load(up_bias + j0 + j, mask=column, other=0.0).to(tl.float32)[None, :]
        y *= scale
        within = row[:, None] & column[None, :]
        if residual is not None:
            y += tl.load(residual + corner + j0 + at, mask=within, other=0.0).to(tl.float32)
        tl.store(o + corner + j0 + at, rounded(y, o.dtype.element_ty), mask=within)
