"""One function for each kernel: tensors and parts become tables, a configuration and a grid."""

from __future__ import annotations

import functools

import torch
import triton
from torch import Tensor

from peftx_kernels.dropout import kept_fraction
from peftx_kernels.ops.lora_linear import product, thin
from peftx_kernels.ops.lora_linear.parts import FIELDS, part_table, piece_table, scale_table

__all__ = [
    "add_or_multiply",
    "down_gradient",
    "even",
    "flat",
    "output_gradients",
    "project",
    "splits",
    "wished",
]

_WIDE = 64  # from this rank on thin products without dropout are the library's: an estimate, not measured


def flat(t: Tensor) -> Tensor:
    """Return t as (T, width) with rows that are contiguous, a copy only where it must be."""
    t = t.reshape(-1, t.shape[-1])
    return t if t.stride(-1) == 1 else t.contiguous()


@functools.lru_cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2


def splits(programs: int, rows: int, block: int, device: torch.device) -> tuple[int, int]:
    """Return (parts, rows of a part) for a sum over rows: `wished` parts of whole blocks each, or fewer."""
    share = block * triton.cdiv(triton.cdiv(rows, block), wished(programs, device))
    return triton.cdiv(rows, share), share


def wished(programs: int, device: torch.device) -> int:
    """Return how many parts of a sum give two programs to every multiprocessor."""
    return max(1, 2 * _multiprocessors(device) // programs)


def even(*lengths: int) -> bool:
    """Return whether all row lengths are multiples of 16: where not, every entry needs an address of its own."""
    return all(length % 16 == 0 for length in lengths)


def _mask(seed: Tensor | None, rate: float) -> tuple[int, int, bool]:
    """Return the arguments seed, dropped and DROPS of the kernels."""
    if rate <= 0:
        return 0, 0, False
    assert seed is not None
    return int(seed), round((1.0 - kept_fraction(rate)) * 65536), True


def project(
    x: Tensor,
    a: Tensor,
    s: Tensor,
    seed: Tensor | None,
    places: tuple[int, ...],
    factors: tuple[float, ...],
    rate: float,
) -> None:
    """Write S = scale (mask * X) A^T into `s`."""
    rows, width = x.shape
    ranks = a.shape[0]
    if ranks > _WIDE and rate <= 0:
        for place, factor in zip(range(0, len(places), FIELDS), factors, strict=True):
            part = slice(places[place + 2], places[place + 2] + places[place + 3])
            torch.addmm(s[:, part], x, a[part].t(), beta=0, alpha=factor, out=s[:, part])
        return
    number, dropped, drops = _mask(seed, rate)
    at = thin.configuration("project", ranks, x.dtype, even=even(width, x.stride(0)))
    thin.project[(triton.cdiv(rows, at.t), triton.cdiv(ranks, at.r))](
        x,
        a.contiguous(),
        scale_table(places, factors, x.device),
        s,
        number,
        dropped,
        rows,
        width,
        ranks,
        x.stride(0),
        DROPS=drops,
        BLOCK_T=at.t,
        BLOCK_K=at.wide,
        BLOCK_R=at.r,
        num_warps=at.warps,
        num_stages=at.stages,
    )


def add_or_multiply(
    x: Tensor | None,  # (rows, inner), or None where `out` holds the product already
    weight: Tensor | None,  # (columns, inner)
    out: Tensor,
    left: Tensor,
    right: Tensor,
    places: tuple[int, ...],
    *,
    by_rank: bool,
    bias: Tensor | None = None,
    gate: Tensor | None = None,
    seed: Tensor | None = None,
    rate: float = 0.0,
) -> None:
    """Launch `product.product`: out = gated(x weight^T + left right + bias), or in place of what `out` holds."""
    rows, ranks = left.shape
    columns = out.shape[-1]
    inner, strides = (
        (0, (0, 0, 0)) if x is None or weight is None else (x.shape[1], (x.stride(0), *weight.stride()))
    )
    number, dropped, drops = _mask(seed, rate)
    aligned = even(columns, inner, *(stride for stride in strides if stride != 1))
    tile = product.configuration(rows, columns, out.dtype, even=aligned, plain=x is not None and not drops)
    product.product[(triton.cdiv(rows, tile.t) * triton.cdiv(columns, tile.j),)](
        x,
        weight,
        out,
        bias,
        gate,
        left,
        right.contiguous(),
        part_table(places, out.device),
        number,
        dropped,
        rows,
        columns,
        inner,
        ranks,
        len(places) // FIELDS,
        *strides,
        BY_RANK=by_rank,
        ALIGNED=_aligned(places),
        DROPS=drops,
        num_warps=tile.warps,
        num_stages=tile.stages,
        **tile.constants,
    )


def _aligned(places: tuple[int, ...]) -> bool:
    """Whether rows, ranks and offsets of all parts are multiples of eight."""
    return all(place % 8 == 0 for at in range(0, len(places), FIELDS) for place in places[at : at + FIELDS])


def output_gradients(
    d_y: Tensor,
    s: Tensor | None,
    b: Tensor,
    d_b: Tensor,
    places: tuple[int, ...],
    factors: tuple[float, ...],
    needs_s: bool,
    needs_b: bool,
) -> tuple[Tensor, Tensor]:
    """Return dS (T, ranks) and the gradient of the chained B."""
    rows, ranks = d_y.shape[0], sum(places[3::FIELDS])
    d_s = d_y.new_empty((rows, ranks) if needs_s else (0,))
    if not needs_s and not needs_b:
        return d_s, d_b
    if max(places[3::FIELDS]) > thin.WIDEST:
        return _library_output_gradients(d_y, s, b, d_s, d_b, places, factors, needs_s, needs_b)
    device = d_y.device
    at = thin.configuration("output_pass", ranks, d_y.dtype, even=even(d_y.stride(0)))
    pieces = piece_table(places, at.wide, device)
    most = max(triton.cdiv(places[p + 1] - places[p], at.wide) for p in range(0, len(places), FIELDS))
    parts, share = splits(pieces.shape[0], rows, at.t, device)
    of_s = torch.empty((most, rows, ranks), dtype=torch.float32, device=device) if needs_s else None
    of_b = torch.empty((parts, b.numel()), dtype=torch.float32, device=device) if needs_b else None
    table = part_table(places, device)
    thin.output_pass[(pieces.shape[0], parts)](
        d_y,
        s,
        b.to(d_y.dtype).contiguous(),
        of_s,
        of_b,
        pieces,
        table,
        scale_table(places, factors, device),
        rows,
        ranks,
        b.numel(),
        share,
        d_y.stride(0),
        ALIGNED=_aligned(places),
        BLOCK_T=at.t,
        BLOCK_N=at.wide,
        BLOCK_R=at.r,
        num_warps=at.warps,
        num_stages=at.stages,
    )
    if of_s is not None:
        thin.gather[(triton.cdiv(rows, 128), len(factors))](
            of_s, d_s, table, rows, ranks, BLOCK_T=128, BLOCK_N=at.wide, BLOCK_R=at.r
        )
    return d_s, d_b if of_b is None else of_b.sum(0).to(b.dtype)


def _library_output_gradients(
    d_y: Tensor,
    s: Tensor | None,
    b: Tensor,
    d_s: Tensor,
    d_b: Tensor,
    places: tuple[int, ...],
    factors: tuple[float, ...],
    needs_s: bool,
    needs_b: bool,
) -> tuple[Tensor, Tensor]:
    run = b.to(d_y.dtype)
    for at, factor in zip(range(0, len(places), FIELDS), factors, strict=True):
        start, stop, low, rank, offset = places[at : at + FIELDS]
        mine, part = d_y[:, start:stop], slice(low, low + rank)
        chain = slice(offset, offset + (stop - start) * rank)
        if needs_s:
            out = d_s[:, part]
            torch.addmm(out, mine, run[chain].view(-1, rank), beta=0, alpha=factor, out=out)
        if needs_b:
            assert s is not None
            d_b[chain] = (mine.t() @ s[:, part]).view(-1)
    return d_s, d_b


def down_gradient(x: Tensor, d_s: Tensor, a: Tensor, seed: Tensor | None, rate: float) -> Tensor:
    """Return the gradient of the stacked A: dS^T (mask * X)."""
    rows, width = x.shape
    ranks = a.shape[0]
    if ranks > _WIDE and rate <= 0:
        return (d_s.t() @ x).to(a.dtype)
    number, dropped, drops = _mask(seed, rate)
    at = thin.configuration("down_pass", ranks, x.dtype, even=even(width, x.stride(0)))
    grid = (triton.cdiv(width, at.wide), triton.cdiv(ranks, at.r))
    parts, share = splits(grid[0] * grid[1], rows, at.t, x.device)
    of_a = torch.empty((parts, ranks, width), dtype=torch.float32, device=x.device)
    thin.down_pass[(*grid, parts)](
        x,
        d_s,
        of_a,
        number,
        dropped,
        rows,
        width,
        ranks,
        share,
        x.stride(0),
        DROPS=drops,
        BLOCK_T=at.t,
        BLOCK_K=at.wide,
        BLOCK_R=at.r,
        num_warps=at.warps,
        num_stages=at.stages,
    )
    return of_a.sum(0).to(a.dtype)
