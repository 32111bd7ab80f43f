"""The backward pass in two kernels: one that walks along rows, one that walks down columns.

    backward    E = dO Wu;  dU = s E mask f'(U);  dH = rstd (dU Wc - c Z) + dO,  c_t = <dU_t, U_t - b> / D
    weights     G = dU^T Z;  dWu = s dO^T V;  sum_t dO;  dbd = sum_t dU             in fp32, in shares of the rows

With the rows of Wc centred, dU Wc has lost its mean already, and <dZ_t, Z_t> is <dU_t, U_t - b>: the norm's backward
needs no pass over dZ. U is rounded, so that number has fewer digits where b is much larger than U - b. Each kernel
reads dO and H once from memory; what they hand on, dU and V, is thin. Shares of a sum are added up afterwards in a
fixed order: no atomics, the same bits in every run.
"""

from __future__ import annotations

import triton
import triton.language as tl

from peftx_kernels.arithmetic import dot, rounded
from peftx_kernels.ops.bottleneck.activations import activated, slope

__all__ = ["backward", "weights"]


@triton.jit(do_not_specialize=["rows"])
def backward(  # type: ignore[no-untyped-def]
    d_o,  # (rows, width), contiguous
    h,  # (rows, width), contiguous; with a norm
    u,  # (rows, units)
    down,  # (units, width)
    bias,  # (units,) fp32, or None; with a norm
    up,  # (width, units)
    learned,  # one value, or None
    mask,  # (rows, units), or None
    statistics,  # (2, rows) fp32, or None
    d_h,  # (rows, width), or None
    d_u,  # (rows, units)
    v,  # (rows, units), or None
    d_scale,  # (blocks of rows,) fp32, or None: <V, E>
    rows,
    width,
    steps,  # units / STEP, so that the compiler knows what units are a multiple of
    scale,
    STEP: tl.constexpr,
    ACTIVATION: tl.constexpr,
    OWN: tl.constexpr,  # whether the residual is h
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """A block of rows of dH, dU and V, and its share of ds."""
    units = steps * STEP
    t0 = tl.program_id(0) * BLOCK_T
    t = tl.arange(0, BLOCK_T)
    j = tl.arange(0, BLOCK_D)
    k = tl.arange(0, BLOCK_M)
    row = t < rows - t0
    unit = k < units
    corner = t0.to(tl.int64) * width
    at = t[:, None] * width + j[None, :]

    acc = tl.zeros((BLOCK_T, BLOCK_M), tl.float32)
    for j0 in range(0, width, BLOCK_D):
        column = j < width - j0
        g = tl.load(d_o + corner + j0 + at, mask=row[:, None] & column[None, :], other=0.0)
        w = tl.load(
            up + j0 * units + (j[:, None] * units + k[None, :]),
            mask=column[:, None] & unit[None, :],
            other=0.0,
        )
        acc = dot(rounded(g.to(tl.float32), w.dtype), w, acc)

    thin = row[:, None] & unit[None, :]
    hidden = t0.to(tl.int64) * units + (t[:, None] * units + k[None, :])
    x = tl.load(u + hidden, mask=thin, other=0.0).to(tl.float32)
    if mask is not None:
        share = tl.load(mask + hidden, mask=thin, other=0.0).to(tl.float32)
    if v is not None or d_scale is not None:
        value = activated(x, ACTIVATION)
        if mask is not None:
            value *= share
        if v is not None:
            tl.store(v + hidden, rounded(value, v.dtype.element_ty), mask=thin)
        if d_scale is not None:
            tl.store(d_scale + tl.program_id(0), tl.sum(tl.where(thin, value * acc, 0.0)))
    if mask is not None:
        acc *= share
    if learned is not None:
        scale = tl.load(learned).to(tl.float32)
    acc *= slope(x, ACTIVATION) * scale
    narrow = rounded(acc, d_u.dtype.element_ty)
    tl.store(d_u + hidden, narrow, mask=thin)

    if d_h is not None:
        if statistics is not None:
            mean = tl.load(statistics + t0 + t, mask=row, other=0.0)
            rstd = tl.load(statistics + rows + t0 + t, mask=row, other=0.0)
            if bias is not None:
                x -= tl.load(bias + k, mask=unit, other=0.0)[None, :]
            common = tl.sum(acc * x, 1) / width * rstd
        for j0 in range(0, width, BLOCK_D):
            column = j < width - j0
            within = row[:, None] & column[None, :]
            w = tl.load(
                down + j0 + (k[:, None] * width + j[None, :]),
                mask=unit[:, None] & column[None, :],
                other=0.0,
            )
            y = dot(narrow, w, tl.zeros((BLOCK_T, BLOCK_D), tl.float32))
            if statistics is not None:
                z = tl.load(h + corner + j0 + at, mask=within, other=0.0).to(tl.float32)
                y = rstd[:, None] * (y - common[:, None] * (z - mean[:, None]))
            if OWN:
                y += tl.load(d_o + corner + j0 + at, mask=within, other=0.0).to(tl.float32)
            tl.store(d_h + corner + j0 + at, rounded(y, d_h.dtype.element_ty), mask=within)


@triton.jit(do_not_specialize=["rows", "share"])
def weights(  # type: ignore[no-untyped-def]
    d_o,  # (rows, width), contiguous
    h,  # (rows, width), contiguous
    d_u,  # (rows, units)
    v,  # (rows, units)
    learned,  # one value, or None
    statistics,  # (2, rows) fp32, or None
    sums,  # (shares, length) fp32; each G (units, width), dWu (width, units), sum_t dO (width,), dbd (units,)
    rows,
    width,
    steps,  # units / STEP, so that the compiler knows what units are a multiple of
    length,
    share,  # rows a program walks over
    scale,
    STEP: tl.constexpr,
    DOWN: tl.constexpr,  # which of them are wanted
    UP: tl.constexpr,
    UP_BIAS: tl.constexpr,
    DOWN_BIAS: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
):
    """Some columns and some units over one share of the rows."""
    units = steps * STEP
    j0 = tl.program_id(0) * BLOCK_D
    k0 = tl.program_id(1) * BLOCK_M
    split = tl.program_id(2)
    j = tl.arange(0, BLOCK_D)
    k = tl.arange(0, BLOCK_M)
    t = tl.arange(0, BLOCK_T)
    column = j < width - j0
    unit = k < units - k0
    first = split * share
    last = min(first + share, rows)
    wide = first.to(tl.int64) * width + j0
    thin = first.to(tl.int64) * units + k0
    at_wide = t[:, None] * width + j[None, :]
    at_thin = t[None, :] * units + k[:, None]  # the thin side of a product on its rows

    g_sum = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    up_sum = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    up_bias_sum = tl.zeros((BLOCK_D,), tl.float32)
    down_bias_sum = tl.zeros((BLOCK_M,), tl.float32)
    for t0 in range(first, last, BLOCK_T):
        row = t < last - t0
        within = row[:, None] & column[None, :]
        if DOWN or DOWN_BIAS:
            du = tl.load(d_u + thin + at_thin, mask=row[None, :] & unit[:, None], other=0.0)
            if DOWN_BIAS:
                down_bias_sum += tl.sum(du.to(tl.float32), 1)
            if DOWN:
                z = tl.load(h + wide + at_wide, mask=within, other=0.0).to(tl.float32)
                if statistics is not None:
                    mean = tl.load(statistics + t0 + t, mask=row, other=0.0)
                    rstd = tl.load(statistics + rows + t0 + t, mask=row, other=0.0)
                    z = (z - mean[:, None]) * rstd[:, None]
                g_sum = dot(du, rounded(z, du.dtype), g_sum)
        if UP or UP_BIAS:
            g = tl.load(d_o + wide + at_wide, mask=within, other=0.0).to(tl.float32)
            if UP_BIAS:
                up_bias_sum += tl.sum(g, 0)
            if UP:
                value = tl.load(v + thin + at_thin, mask=row[None, :] & unit[:, None], other=0.0)
                up_sum = dot(value, rounded(g, value.dtype), up_sum)
        wide += BLOCK_T * width
        thin += BLOCK_T * units

    if learned is not None:
        scale = tl.load(learned).to(tl.float32)
    sums += split.to(tl.int64) * length
    corner = k0.to(tl.int64) * width + j0
    both = unit[:, None] & column[None, :]
    if DOWN:
        tl.store(sums + corner + (k[:, None] * width + j[None, :]), g_sum, mask=both)
    sums += units * width
    if UP:
        tl.store(sums + j0 * units + k0 + (j[None, :] * units + k[:, None]), up_sum * scale, mask=both)
    sums += units * width
    if UP_BIAS:
        tl.store(sums + j0 + j, up_bias_sum, mask=column & (tl.program_id(1) == 0))
    if DOWN_BIAS:
        tl.store(sums + width + k0 + k, down_bias_sum, mask=unit & (tl.program_id(0) == 0))
