"""Launches of this op's kernels, as operations that torch knows: a layer's maps formed, formed again, contracted.

Forming in the forward pass (which searches the thresholds) and in the backward pass (which is told them) are two
operations on purpose: a compiler that saw one operation called twice with the same inputs would keep the first result,
and with it a dense weight of every layer.

What a compiler traces has a float sparsity for a constant; where it is a tensor, the place of the threshold comes as a
tensor, too. An operation takes a list of tensors, for each part a, b, with a mixture alpha, gamma, beta, then perhaps
the place; and numbers, packed by `numbers`. What the backward pass is told is a vector of notes, part by part: t, a
power of two, with a mixture two numbers for each column.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from peftx_kernels.ops.snell_linear import sizes
from peftx_kernels.ops.snell_linear.backward import (
    contract_kernel,
    finish_kernel,
    join_moments_kernel,
    moments_kernel,
)
from peftx_kernels.ops.snell_linear.forward import form_kernel, join_stats_kernel, stats_kernel
from peftx_kernels.ops.snell_linear.part import SnellPart
from peftx_kernels.ops.snell_linear.quantile import position
from peftx_kernels.ops.snell_linear.search import PASSES, RANK, WEIGHT, WORDS, begin_kernel, count_kernel
from peftx_kernels.raw_op import raw_op

__all__ = ["FLOATS", "INTS", "contract", "form", "form_again", "noted", "numbers", "place"]

#: numbers that describe a part
INTS, FLOATS = 5, 2
_MODES = ("official", "paper", "soft", "dense")  # the kernels' numbers
_FEW = 4  # coordinates that fit half a sector of 32 bytes: to turn them saves less than its launches cost


class _Map(NamedTuple):
    """One part as the launchers see it: factors in float32 and in the kernels' layout."""

    start: int
    stop: int
    mode: int
    sparsity: float
    scale: float
    a: Tensor
    b: Tensor
    mix: tuple[Tensor, Tensor, Tensor] | None
    place: Tensor | None

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """(out, width, size, groups, turned), as the kernels take them."""
        groups, width, size = self.a.shape
        return self.b.shape[1], width, size, groups, int(size > _FEW)

    @property
    def scalars(self) -> tuple[Tensor, Tensor, Tensor]:
        """alpha, beta, gamma as the kernels take them, or something in their places."""
        return (self.a,) * 3 if self.mix is None else (self.mix[0], self.mix[2], self.mix[1])

    @property
    def rank(self) -> tuple[int, int]:
        """(rank from 0, bits of the weight of the rank above) of the threshold; rank -1 says that it is 0."""
        mode, entries = _MODES[self.mode], self.b.shape[1] * self.a.shape[1]
        if mode == "dense" or self.place is not None:
            return 0, 0
        if mode == "paper":
            return min(math.ceil(self.sparsity * entries), entries) - 1, 0
        rank, weight = position(self.sparsity, entries)
        (bits,) = struct.unpack("i", struct.pack("f", weight))
        return rank, bits


def numbers(parts: Sequence[SnellPart]) -> tuple[list[int], list[float]]:
    """What an operation is told of its parts beside their tensors."""
    ints: list[int] = []
    floats: list[float] = []
    for part in parts:
        placed = isinstance(part.sparsity, Tensor)
        ints += [part.start, part.stop, _MODES.index(part.mode), int(part.mix is not None), int(placed)]
        floats += [0.0 if placed else float(part.sparsity), float(part.scale)]
    return ints, floats


def noted(width: int, mixed: bool) -> int:
    """How many notes a part has."""
    return 2 + 2 * width * mixed


def place(part: SnellPart) -> Tensor | None:
    """(rank, bits of the upper neighbour's weight) where only the device knows the sparsity, else None."""
    if not isinstance(part.sparsity, Tensor):
        return None
    entries = part.a.shape[1] * part.b.shape[1]
    sparsity = part.sparsity.detach().to(torch.float64)
    if part.mode == "paper":
        rank = (sparsity * entries).ceil() - 1  # -1 at sparsity 0: the threshold is 0
        weight = torch.zeros_like(sparsity)
    else:
        at = sparsity.float().double() * (entries - 1)
        rank = at.floor().clamp(0, entries - 1)
        weight = (at - rank).clamp(0, 1)
    words = (rank.to(torch.int32), weight.float().view(torch.int32))
    return torch.stack([word.reshape(()) for word in words])


def _maps(tensors: Sequence[Tensor], ints: Sequence[int], floats: Sequence[float]) -> list[_Map]:
    left, found = iter(tensors), []
    for index in range(len(ints) // INTS):
        start, stop, mode, mixed, placed = ints[INTS * index : INTS * (index + 1)]
        sparsity, scale = floats[FLOATS * index : FLOATS * (index + 1)]
        a, b = _factor(next(left)), _factor(next(left))
        mix = (_plain(next(left)), _plain(next(left)), _plain(next(left))) if mixed else None
        where = next(left) if placed else None
        found.append(_Map(start, stop, mode, sparsity, scale, a, b, mix, where))
    return found


def _plain(t: Tensor) -> Tensor:
    return t.detach().float().contiguous()


def _factor(t: Tensor) -> Tensor:
    """A factor with its coordinates side by side, or with those of neighbouring rows, where there are many."""
    if t.shape[2] <= _FEW:
        return _plain(t)
    return t.detach().float().transpose(1, 2).contiguous().transpose(1, 2)


def _put_stats(one: _Map, stats: Tensor) -> None:
    """Write what the softmax over each column needs into stats (2 width)."""
    out, width, *_ = one.sizes
    _, beta, gamma = one.scalars
    across, splits, each = sizes.column_splits(out, width)
    parts = one.a.new_empty((splits, 2, width))
    stats_kernel[(across, splits)](
        parts, one.a, one.b, beta, gamma, *one.sizes, one.scale, each, sizes.SUMS.rows, sizes.SUMS.columns,
        num_warps=sizes.SUMS.warps,
    )  # fmt: skip
    join_stats_kernel[(triton.cdiv(width, sizes.JOIN),)](stats, parts, width, splits, sizes.JOIN)


def _write(one: _Map, target: Tensor, base: Tensor | None, notes: Tensor, work: Tensor | None) -> None:
    """S^T, or base + S^T, into `target`; with a workspace the notes are made first."""
    mixed = one.mix is not None
    grid = (sizes.programs(*one.sizes[:2]),)
    tile: dict[str, Any] = {
        "ROWS": sizes.FORM.rows,
        "COLUMNS": sizes.FORM.columns,
        "MIX": mixed,
        "num_warps": sizes.FORM.warps,
    }
    scaled = target.dtype is torch.float16
    if work is not None:
        if mixed:
            _put_stats(one, notes[2:])
        begin_kernel[(1,)](work, *one.rank, WORDS)
        if one.place is not None:
            work[RANK : RANK + 1] = one.place[:1]
            work[WEIGHT : WEIGHT + 1] = one.place[1:]
        # without a threshold the first pass alone, which finds the largest
        for step in range(PASSES if _MODES[one.mode] != "dense" else int(scaled)):
            count_kernel[grid](
                work, one.a, one.b, *one.scalars, notes[2:], *one.sizes, step, one.scale, **tile
            )
    strides = (0, 0) if base is None else base.stride()
    # in the places of a base and a workspace that there are not, something of their types, so that one kernel serves
    form_kernel[grid](
        target, notes if base is None else base, notes, notes.view(torch.int32) if work is None else work,
        one.a, one.b, *one.scalars, *one.sizes, one.mode, int(work is not None), *strides, one.scale,
        BASE=base is not None, SCALED=scaled, **tile,
    )  # fmt: skip


def _write_all(
    weight: Tensor | None, maps: list[_Map], notes: Tensor, search: bool, dtype: torch.dtype
) -> Tensor:
    """S^T of the only part, or the weight plus all of them."""
    work = torch.empty(WORDS, dtype=torch.int32, device=notes.device) if search else None
    if weight is None:
        target = torch.empty((maps[0].b.shape[1], maps[0].a.shape[1]), dtype=dtype, device=notes.device)
        _write(maps[0], target, None, notes, work)
        return target
    total = torch.empty(weight.shape, dtype=dtype, device=notes.device)
    spans = sorted((one.start, one.stop) for one in maps)
    apart = all(stop <= start for (_, stop), (start, _) in itertools.pairwise(spans))
    if apart:
        done = 0
        for start, stop in (*spans, (weight.shape[0], weight.shape[0])):
            if done < start:
                total[done:start].copy_(weight[done:start])
            done = stop
    else:  # parts that overlap add up
        total.copy_(weight)
    first = 0  # of a part's notes
    for one in maps:
        rows = total[one.start : one.stop]
        _write(one, rows, weight[one.start : one.stop] if apart else rows, notes[first:], work)
        first += noted(one.a.shape[1], one.mix is not None)
    return total


def _like(weight: Tensor | None, tensors: list[Tensor], dtype: torch.dtype) -> Tensor:
    a, b = tensors[:2]
    return a.new_empty((b.shape[1], a.shape[1]) if weight is None else weight.shape, dtype=dtype)


def _empty_notes(tensors: list[Tensor], ints: list[int]) -> Tensor:
    width, mixes = tensors[0].shape[1], ints[3::INTS]
    return tensors[0].new_empty(sum(noted(width, bool(mixed)) for mixed in mixes), dtype=torch.float32)


def _fake_form(
    weight: Tensor | None, tensors: list[Tensor], ints: list[int], floats: list[float], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    return _like(weight, tensors, dtype), _empty_notes(tensors, ints)


@raw_op(
    "snell_form",
    "(Tensor? weight, Tensor[] tensors, int[] ints, float[] floats, ScalarType dtype) -> (Tensor, Tensor)",
    _fake_form,
)
def form(
    weight: Tensor | None, tensors: list[Tensor], ints: list[int], floats: list[float], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(weight + S^T of all parts, or S^T of the only one; the notes).

    With a weight both are float32. Without, S^T in float16 is divided by a power of two, so that its largest entry
    comes to lie between 1/2 and 1; in other types the power is 1.
    """
    notes = _empty_notes(tensors, ints)
    return _write_all(weight, _maps(tensors, ints, floats), notes, True, dtype), notes


def _fake_form_again(
    weight: Tensor | None,
    tensors: list[Tensor],
    notes: Tensor,
    ints: list[int],
    floats: list[float],
    dtype: torch.dtype,
) -> Tensor:
    return _like(weight, tensors, dtype)


@raw_op(
    "snell_form_again",
    "(Tensor? weight, Tensor[] tensors, Tensor notes, int[] ints, float[] floats, ScalarType dtype) -> Tensor",
    _fake_form_again,
)
def form_again(
    weight: Tensor | None,
    tensors: list[Tensor],
    notes: Tensor,
    ints: list[int],
    floats: list[float],
    dtype: torch.dtype,
) -> Tensor:
    """What `form` returned first, from the notes that it returned second."""
    return _write_all(weight, _maps(tensors, ints, floats), notes, False, dtype)


def _fake_contract(
    gradient: Tensor, tensors: list[Tensor], notes: Tensor, ints: list[int], floats: list[float]
) -> tuple[Tensor, Tensor, Tensor]:
    a, b = (t.new_empty(t.shape, dtype=torch.float32) for t in tensors[:2])
    return a, b, a.new_empty(3)


@raw_op(
    "snell_contract",
    "(Tensor gradient, Tensor[] tensors, Tensor notes, int[] ints, float[] floats) -> (Tensor, Tensor, Tensor)",
    _fake_contract,
)
def contract(
    gradient: Tensor, tensors: list[Tensor], notes: Tensor, ints: list[int], floats: list[float]
) -> tuple[Tensor, Tensor, Tensor]:
    """(dA, dB, (dalpha, dgamma, dbeta)) in float32, from G = dL/dS^T (rows, in), of the one part that is described.

    `notes` are its own. Without a mixture the last result holds nothing.
    """
    (one,) = _maps(tensors, ints, floats)
    gradient = gradient.contiguous()
    out, width, size, groups, _ = one.sizes
    mixed = one.mix is not None
    alpha, _, gamma = one.scalars
    moments = _moments(one, gradient, notes) if mixed else one.a
    down, across, each_down, each_across = sizes.blocks(out, width, groups, size)
    to_a = one.a.new_empty((down, groups, size, width))
    to_b = one.a.new_empty((across, groups, size, out))
    to_gamma = one.a.new_empty(down * across) if mixed else one.a
    contract_kernel[(down, across)](
        to_a, to_b, to_gamma, gradient, notes, moments, one.a, one.b, *one.scalars, *one.sizes,
        one.mode, each_down, each_across, one.scale, sizes.CONTRACT.rows, sizes.CONTRACT.columns, mixed,
        num_warps=sizes.CONTRACT.warps,
    )  # fmt: skip
    d_a, d_b, d_mix = (one.a.new_empty(shape) for shape in (one.a.shape, one.b.shape, (3,)))
    finish_kernel[(triton.cdiv(groups * size * max(out, width), sizes.JOIN), 2 + mixed)](
        d_a, d_b, d_mix, to_a, to_b, to_gamma, moments, alpha, gamma, out, width, size, groups, down, across,
        one.scale, sizes.JOIN, mixed,
    )  # fmt: skip
    return d_a, d_b, d_mix


def _moments(one: _Map, gradient: Tensor, notes: Tensor) -> Tensor:  # (2, in)
    """Sums of G' p and of G' over the outputs."""
    out, width, *_ = one.sizes
    across, splits, each = sizes.column_splits(out, width)
    parts, moments = one.a.new_empty((splits, 2, width)), one.a.new_empty((2, width))
    moments_kernel[(across, splits)](
        parts, gradient, notes, one.a, one.b, *one.scalars, *one.sizes, one.mode, each, one.scale,
        sizes.SUMS.rows, sizes.SUMS.columns, num_warps=sizes.SUMS.warps,
    )  # fmt: skip
    join_moments_kernel[(triton.cdiv(2 * width, sizes.JOIN),)](moments, parts, width, splits, sizes.JOIN)
    return moments
