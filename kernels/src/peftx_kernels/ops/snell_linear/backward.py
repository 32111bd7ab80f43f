"""Kernels of the backward pass: from G = dL/dS^T, one tile after another, to the gradients of the thin factors.

R_h = dV / D_h (0 where D_h = 0);   dA_h[i] = c_h sum_j R_h[i, j] (A_h[i] - B_h[j]), B's likewise;   c_h = +-scale

Coordinate by coordinate a tile of R (A - B) is added up along both sides. As products of matrices these would be
(R 1) A - R B, which cancels, and needs all of float32, which tensor cores do not give; what is left of them is bound by
shared memory. One warp has a tile to itself, so that neither sum leaves it.

Nobody knows the order in which programs run, and sums of floats depend on it: each program has its own slice of partial
sums, to which it adds as it walks over its tiles, and the last kernel adds the slices in order.

With a mixture V' = V + alpha p + beta, p the softmax over the outputs, G' = G K:
q = sum_j G' p;   dV = G' + (alpha / gamma) p (G' - q);   dalpha = sum q;   dbeta = sum G';
dgamma = -(alpha / gamma^2) sum p (G' - q) V, where V may be shifted by a constant of each column.
"""

from __future__ import annotations

import triton
import triton.language as tl

from peftx_kernels.ops.snell_linear.maps import (
    coordinates,
    distances,
    kept_factor,
    kernel,
    mixed_values,
    modes,
    plain_values,
    softmax_part,
)

__all__ = ["contract_kernel", "finish_kernel", "join_moments_kernel", "moments_kernel"]

# mypy: disable-error-code="no-untyped-def"


@kernel
def moments_kernel(
    parts, gradient, notes, a, b, alpha, beta, gamma,
    out, width, size, groups, turned, mode, rows_each, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Sums of G' p and of G' over `rows_each` rows of a block of columns, into parts (splits, 2, width)."""
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    split = tl.program_id(1)
    grows, offset, _shrink, limit = modes(mode, tl.load(notes))
    weighted = tl.zeros((COLUMNS,), tl.float32)
    plain = tl.zeros((COLUMNS,), tl.float32)
    for top in range(split * rows_each, tl.minimum((split + 1) * rows_each, out), ROWS):
        rows = top + tl.arange(0, ROWS)
        v = plain_values(a, b, rows, columns, out, width, size, groups, turned, scale, beta, True)
        _below, p = softmax_part(v, gamma, notes + 2, columns, width)
        factor = kept_factor(mixed_values(v, p, alpha), grows, offset, limit)
        inside = (rows < out)[:, None] & (columns < width)[None, :]
        at = gradient + rows.to(tl.int64)[:, None] * width + columns[None, :]
        kept = tl.where(inside, tl.load(at, mask=inside, other=0.0).to(tl.float32) * factor, 0.0)
        weighted += tl.sum(tl.where(inside, kept * p, 0.0), 0)
        plain += tl.sum(kept, 0)
    tl.store(parts + 2 * split * width + columns, weighted, mask=columns < width)
    tl.store(parts + (2 * split + 1) * width + columns, plain, mask=columns < width)


@kernel
def join_moments_kernel(moments, parts, width, splits, BLOCK: tl.constexpr):
    """moments (2, width): both sums over all rows."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for split in range(splits):
        total += tl.load(parts + 2 * split * width + at, mask=at < 2 * width, other=0.0)
    tl.store(moments + at, total, mask=at < 2 * width)


@kernel
def contract_kernel(
    to_a, to_b, to_gamma, gradient, notes, moments, a, b, alpha, beta, gamma,
    out, width, size, groups, turned, mode, tiles_down, tiles_across, scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, MIX: tl.constexpr,
):  # fmt: skip
    """Partial sums of R (A - B) over a block of tiles_down x tiles_across tiles.

    to_a (blocks down, groups, size, width), to_b (blocks across, groups, size, out), to_gamma (all blocks).
    """
    block_down = tl.program_id(0)
    block_across = tl.program_id(1)
    mine_a = to_a + block_down.to(tl.int64) * groups * size * width
    mine_b = to_b + block_across.to(tl.int64) * groups * size * out
    grows, offset, _shrink, limit = modes(mode, tl.load(notes))
    a_row, a_step = coordinates(width, size, turned)
    b_row, b_step = coordinates(out, size, turned)
    d_gamma = 0.0
    for down in range(tiles_down):
        rows = (block_down * tiles_down + down) * ROWS + tl.arange(0, ROWS)
        in_rows = rows < out
        for across in range(tiles_across):
            columns = (block_across * tiles_across + across) * COLUMNS + tl.arange(0, COLUMNS)
            in_columns = columns < width
            inside = in_rows[:, None] & in_columns[None, :]
            v = plain_values(a, b, rows, columns, out, width, size, groups, turned, scale, beta, MIX)
            at = gradient + rows.to(tl.int64)[:, None] * width + columns[None, :]
            d_v = tl.load(at, mask=inside, other=0.0).to(tl.float32)
            if MIX:
                below, p = softmax_part(v, gamma, notes + 2, columns, width)
                d_v *= kept_factor(mixed_values(v, p, alpha), grows, offset, limit)
                q = tl.load(moments + columns, mask=in_columns, other=0.0)
                p = tl.where(inside, p * (d_v - q[None, :]), 0.0)
                d_gamma += tl.sum(tl.where(inside, p * below, 0.0))
                d_v += tl.load(alpha) / tl.load(gamma) * p
            else:
                d_v *= kept_factor(v, grows, offset, limit)
            for group in range(groups):
                # formed again: cheaper than holding one tile for each group
                apart = distances(a, b, group, rows, columns, out, width, size, turned)
                r = tl.where(inside & (apart > 0), d_v / tl.where(apart > 0, apart, 1.0), 0.0)
                of_a = a + group * width * size + columns * a_row
                of_b = b + group * out * size + rows * b_row
                into_a = mine_a + group * width * size + columns
                into_b = mine_b + group * out * size + rows
                for _ in range(size):
                    # before the first tile of a row or column nothing is there yet
                    before_a = tl.load(into_a, mask=in_columns & (down > 0), other=0.0)
                    before_b = tl.load(into_b, mask=in_rows & (across > 0), other=0.0)
                    right = tl.load(of_a, mask=in_columns, other=0.0)
                    left = tl.load(of_b, mask=in_rows, other=0.0)
                    moved = r * (right[None, :] - left[:, None])
                    tl.store(into_a, before_a + tl.sum(moved, 0), mask=in_columns)
                    tl.store(into_b, before_b - tl.sum(moved, 1), mask=in_rows)
                    of_a += a_step
                    of_b += b_step
                    into_a += width
                    into_b += out
            # the next tile's sums may be read by other threads than have written these
            tl.debug_barrier()
    if MIX:
        tl.store(to_gamma + block_down * tl.num_programs(1) + block_across, d_gamma)


@triton.jit
def _finish(target, partials, slices, length, size, groups, scale, BLOCK: tl.constexpr):
    """Add the slices (groups, size, length) in order, and write (groups, length, size)."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < groups * size * length
    total = tl.zeros((BLOCK,), tl.float32)
    here = partials + at
    for _ in range(slices):
        total += tl.load(here, mask=inside, other=0.0)
        here += groups * size * length
    group = at // (size * length)
    coordinate = at // length - group * size
    index = (group * length + at % length) * size + coordinate
    tl.store(target + index, (1.0 - 2.0 * (group % 2)) * scale * total, mask=inside)


@kernel
def finish_kernel(
    d_a, d_b, d_mix, to_a, to_b, to_gamma, moments, alpha, gamma,
    out, width, size, groups, blocks_down, blocks_across, scale,
    BLOCK: tl.constexpr, MIX: tl.constexpr,
):  # fmt: skip
    """Add up the partial sums: the second program number is 0 for dA, 1 for dB, 2 for (dalpha, dgamma, dbeta)."""
    task = tl.program_id(1)
    if task == 0:
        _finish(d_a, to_a, blocks_down, width, size, groups, scale, BLOCK)
    if task == 1:
        _finish(d_b, to_b, blocks_across, out, size, groups, scale, BLOCK)
    if MIX:  # noqa: SIM102 - one is decided when compiling
        if (task == 2) & (tl.program_id(0) == 0):
            to_alpha = tl.zeros((BLOCK,), tl.float32)
            to_beta = tl.zeros((BLOCK,), tl.float32)
            for left in range(0, width, BLOCK):
                columns = left + tl.arange(0, BLOCK)
                to_alpha += tl.load(moments + columns, mask=columns < width, other=0.0)
                to_beta += tl.load(moments + width + columns, mask=columns < width, other=0.0)
            to_z = tl.zeros((BLOCK,), tl.float32)
            for left in range(0, blocks_down * blocks_across, BLOCK):
                blocks = left + tl.arange(0, BLOCK)
                to_z += tl.load(to_gamma + blocks, mask=blocks < blocks_down * blocks_across, other=0.0)
            tl.store(d_mix, tl.sum(to_alpha, 0))
            tl.store(d_mix + 1, -tl.load(alpha) / tl.load(gamma) * tl.sum(to_z, 0))
            tl.store(d_mix + 2, tl.sum(to_beta, 0))
