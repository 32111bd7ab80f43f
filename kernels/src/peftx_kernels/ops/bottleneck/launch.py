"""Launches of the kernels: block sizes, buffers, and the two operations that a compiler sees."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from peftx_kernels.dropout import kept_fraction
from peftx_kernels.ops.bottleneck.backward import backward, weights
from peftx_kernels.ops.bottleneck.forward import draw, fold, forward
from peftx_kernels.raw_op import raw_op

__all__ = [
    "DRAW",
    "FOLD",
    "NARROW",
    "TILES",
    "VECTOR",
    "WIDEST",
    "Tile",
    "bottleneck_backward",
    "bottleneck_forward",
    "configuration",
    "even",
    "length",
    "shares_of",
]

#: hidden units that a block of rows holds in registers, at most; and where the type or the width leaves less room
WIDEST = 256
NARROW = 64
#: hidden units that are read as one vector where they come in multiples of it
VECTOR = 8
#: rows and columns that `fold` takes at a time, rows of `draw`
FOLD = (4, 256)
DRAW = 16
_PROGRAMS = 264
"""Programs that `weights` should have: two for each multiprocessor of an H200. An estimate, not measured."""
_MANY = 8192
"""Rows from which blocks of 64 are enough programs for all multiprocessors. An estimate, not measured."""


class Tile(NamedTuple):
    """A configuration: rows, columns, the most units, warps and stages."""

    t: int
    d: int
    m: int
    warps: int
    stages: int


#: by the cost model and not measured; `uneven` where rows cannot be read in vectors, `exact` for fp32
TILES = {
    "many": Tile(64, 64, 64, 8, 2),
    "few": Tile(16, 64, 64, 4, 4),
    "wide": Tile(16, 64, 256, 8, 2),
    "uneven": Tile(16, 32, 64, 4, 2),
    "exact": Tile(16, 32, 64, 4, 2),
    "sums": Tile(32, 64, 64, 8, 3),
    "sums, uneven": Tile(16, 32, 32, 4, 2),
    "sums, exact": Tile(32, 32, 32, 8, 2),
}


def configuration(rows: int, width: int, units: int, dtype: torch.dtype, *, sums: bool = False) -> Tile:
    """The tile for products in `dtype`, of `forward` and `backward` or of `weights` (`sums`)."""
    kind = "exact" if dtype is torch.float32 else "" if even(width, units) else "uneven"
    if sums:
        return TILES[f"sums, {kind}" if kind else "sums"]
    if kind:
        return TILES[kind]
    return TILES["wide" if units > NARROW else "many" if rows >= _MANY else "few"]


def length(width: int, units: int) -> int:
    """Entries of all sums over rows: G (units, width), dWu (width, units), sum_t dO (width,), dbd (units,)."""
    return 2 * width * units + width + units


def even(width: int, units: int) -> bool:
    """Whether every row, and every row of hidden units, starts at a multiple of 16 bytes."""
    return width % 16 == 0 and units % VECTOR == 0


def _rows(t: Tensor) -> Tensor:
    return _aligned(t.reshape(-1, t.shape[-1]))


def _aligned(t: Tensor) -> Tensor:
    """Without gaps, from a multiple of 16 bytes on: what is in the middle of another tensor may have to be copied."""
    t = t.contiguous()
    return t if t.data_ptr() % 16 == 0 else t.clone()


def _close(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.contiguous()


def _folded(
    down: Tensor, down_bias: Tensor | None, gamma: Tensor | None, beta: Tensor | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    centred = torch.empty(down.shape, dtype=dtype, device=down.device)
    bias = torch.empty(down.shape[:1], dtype=torch.float32, device=down.device)
    units, width = down.shape
    rows, columns = FOLD
    fold[(triton.cdiv(units, rows),)](
        down,
        _close(down_bias),
        _close(gamma),
        _close(beta),
        centred,
        bias,
        units,
        width,
        BLOCK_M=rows,
        BLOCK_D=columns,
        num_warps=4,
    )
    return centred, bias


def _drawn(seed: Tensor | None, like: Tensor, rate: float) -> Tensor | None:  # (T, m)
    """The mask for a seed; like U, and gone with the pass."""
    if seed is None:
        return None
    mask, kept = torch.empty_like(like), kept_fraction(rate)
    block = max(16, triton.next_power_of_2(mask.shape[1]))
    draw[(triton.cdiv(mask.shape[0], DRAW),)](
        seed,
        mask,
        *mask.shape,
        round((1.0 - kept) * 65536),
        kept,
        BLOCK_T=DRAW,
        BLOCK_M=block,
        num_warps=4,
    )
    return mask


_THIN = (
    "Tensor down, Tensor? down_bias, Tensor up, Tensor? up_bias, Tensor? gamma, Tensor? beta, Tensor? learned"
)


def _no_forward(
    h: Tensor, residual: Tensor | None, down: Tensor, down_bias: Tensor | None, up: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor]:
    own, norms = rest[5], rest[6]
    added = h if own else residual
    dtype = up.dtype if added is None else torch.promote_types(up.dtype, added.dtype)
    rows = math.prod(h.shape[:-1])
    statistics = h.new_empty((2, rows) if norms else (0,), dtype=torch.float32)
    return h.new_empty(h.shape, dtype=dtype), up.new_empty((rows, down.shape[0])), statistics


@raw_op(
    "bottleneck_forward",
    f"(Tensor h, Tensor? residual, {_THIN}, Tensor? seed, bool own, bool norms, float eps, float rate, float scale, "
    "str activation) -> (Tensor, Tensor, Tensor)",
    _no_forward,
)
def bottleneck_forward(
    h: Tensor,
    residual: Tensor | None,
    down: Tensor,
    down_bias: Tensor | None,
    up: Tensor,  # its type is that of the products
    up_bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    learned: Tensor | None,
    seed: Tensor | None,  # one int64, on the device
    own: bool,  # the residual is h
    norms: bool,
    eps: float,
    rate: float,
    scale: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (o, U (T, m), statistics (2, T) fp32 of the norm, else empty)."""
    o, u, statistics = _no_forward(
        h, residual, down, down_bias, up, up_bias, gamma, beta, learned, seed, own, norms
    )
    flat = _rows(h)
    rows, width = flat.shape
    units = down.shape[0]
    if not rows:
        return o, u, statistics
    added = flat if own else None if residual is None else _rows(residual)
    weight, bias = _aligned(down), down_bias
    if norms:
        weight, bias = _folded(weight, down_bias, gamma, beta, up.dtype)
    elif bias is not None:
        bias = bias.float().contiguous()
    up, step = _aligned(up), VECTOR if even(width, units) else 1
    tile = configuration(rows, width, units, up.dtype)
    forward[(triton.cdiv(rows, tile.t),)](
        flat,
        added,
        weight,
        bias,
        up,
        _close(up_bias),
        learned,
        _drawn(seed, u, rate),
        o,
        u,
        statistics if norms else None,
        rows,
        width,
        units // step,
        scale,
        eps,
        STEP=step,
        ACTIVATION=activation,
        BLOCK_T=tile.t,
        BLOCK_D=tile.d,
        BLOCK_M=max(16, triton.next_power_of_2(units)),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return o, u, statistics


def _no_backward(
    d_o: Tensor, h: Tensor, u: Tensor, down: Tensor, down_bias: Tensor | None, up: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor]:
    needs = rest[-1]
    assert isinstance(needs, list | tuple)
    sums = length(h.shape[-1], down.shape[0]) if any(needs[1:5]) else 0
    return (
        h.new_empty(h.shape if needs[0] else (0,)),
        h.new_empty((sums,), dtype=torch.float32),
        h.new_empty((1 if needs[5] else 0,), dtype=torch.float32),
    )


@raw_op(
    "bottleneck_backward",
    f"(Tensor d_o, Tensor h, Tensor u, {_THIN}, Tensor? seed, Tensor? statistics, bool own, float rate, float scale, "
    "str activation, bool[] needs) -> (Tensor, Tensor, Tensor)",
    _no_backward,
)
def bottleneck_backward(
    d_o: Tensor,
    h: Tensor,
    u: Tensor,
    down: Tensor,
    down_bias: Tensor | None,
    up: Tensor,
    up_bias: Tensor | None,
    gamma: Tensor | None,
    beta: Tensor | None,
    learned: Tensor | None,
    seed: Tensor | None,
    statistics: Tensor | None,  # with a norm
    own: bool,
    rate: float,
    scale: float,
    activation: str,
    needs: list[bool],  # dH, G, dWu, sum_t dO, dbd, <V, E>
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (dH, the sums over rows in fp32 (`length`), <V, E>); what is not needed is empty, or not written."""
    d_h, sums, d_scale = _no_backward(d_o, h, u, down, down_bias, up, needs)
    flat, flat_d_o = _rows(h), _rows(d_o)
    rows, width = flat.shape
    units = down.shape[0]
    if not rows:
        return d_h, sums.zero_(), d_scale.zero_()
    needs_h, needs_down, needs_up, needs_total, needs_bias, needs_scale = needs
    weight, bias = _aligned(down), down_bias
    if statistics is not None and needs_h:
        weight, bias = _folded(weight, down_bias, gamma, beta, up.dtype)
    up, step = _aligned(up), VECTOR if even(width, units) else 1
    tile = configuration(rows, width, units, up.dtype)
    blocks = triton.cdiv(rows, tile.t)
    d_u = torch.empty_like(u)
    v = torch.empty_like(u) if needs_up else None
    shares = d_scale.new_empty(blocks) if needs_scale else None
    backward[(blocks,)](
        flat_d_o,
        flat,
        u,
        weight,
        bias,
        up,
        learned,
        _drawn(seed, u, rate),
        statistics,
        d_h if needs_h else None,
        d_u,
        v,
        shares,
        rows,
        width,
        units // step,
        scale,
        STEP=step,
        ACTIVATION=activation,
        OWN=own,
        BLOCK_T=tile.t,
        BLOCK_D=tile.d,
        BLOCK_M=max(16, triton.next_power_of_2(units)),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    if shares is not None:
        d_scale = shares.sum(0, keepdim=True)
    if sums.numel():
        wanted = (needs_down, needs_up, needs_total, needs_bias)
        sums = _sums(flat_d_o, flat, d_u, v, learned, statistics, scale, wanted)
    return d_h, sums, d_scale


def shares_of(rows: int, units: int, programs: int, block: int) -> tuple[int, int]:
    """(number, rows of each) for a sum over rows that `programs` programs make in blocks of `block` rows."""
    # what the shares write and read again should weigh no more than h and d_o
    most = min(max(1, _PROGRAMS // programs), max(1, rows // (4 * units)))
    share = block * triton.cdiv(triton.cdiv(rows, block), most)
    return triton.cdiv(rows, share), share


def _sums(
    d_o: Tensor,
    h: Tensor,
    d_u: Tensor,
    v: Tensor | None,
    learned: Tensor | None,
    statistics: Tensor | None,
    scale: float,
    wanted: tuple[bool, bool, bool, bool],
) -> Tensor:  # (length,) fp32
    rows, width = h.shape
    units = d_u.shape[1]
    tile = configuration(rows, width, units, d_u.dtype, sums=True)
    block = min(tile.m, max(16, triton.next_power_of_2(units)))
    step = VECTOR if even(width, units) else 1
    programs = triton.cdiv(width, tile.d) * triton.cdiv(units, block)
    shares, share = shares_of(rows, units, programs, tile.t)
    entries = length(width, units)
    sums = torch.empty((shares, entries), dtype=torch.float32, device=h.device)
    weights[(triton.cdiv(width, tile.d), triton.cdiv(units, block), shares)](
        d_o,
        h,
        d_u,
        v,
        learned,
        statistics,
        sums,
        rows,
        width,
        units // step,
        entries,
        share,
        scale,
        STEP=step,
        DOWN=wanted[0],
        UP=wanted[1],
        UP_BIAS=wanted[2],
        DOWN_BIAS=wanted[3],
        BLOCK_T=tile.t,
        BLOCK_D=tile.d,
        BLOCK_M=block,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return sums[0] if shares == 1 else sums.sum(0)
