"""Grouped LoRA from library calls alone: one product with W for all rows, and two thin ones for every piece of a group.

A piece is a slice of the rows where a group's rows lie in sequence (a sample's tokens), and then nothing is copied: the
thin products read x and add to y where they are. Rows that are scattered are gathered group by group, so that what is
gathered stays in the cache between its two products.

For a piece P of group g, with the A of the group's parts stacked and [R, T] thin results, as in ``lora_linear``:

Forward     Y = X W^T + bias;  S = A_g X_P^T;  Y_P += s S^T B^T
Backward    dX = dY W;  dS = s B^T dY_P^T;  dX_P += dS^T A_g;  dA_g += dS X_P;  dB += s (S dY_P)^T

With a handful of rows for each adapter the calls are what costs, not what is kept: then torch's own derivatives do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from peftx_kernels.activation import ActivationSource
from peftx_kernels.context import as_rows, autocast_off, compute_dtype, is_tracing, own_linear, wide
from peftx_kernels.dropout import check_rate, draw_seed, keep_mask, kept_fraction
from peftx_kernels.ops.grouped_lora.groups import Groups, Piece

__all__ = ["check_parts", "grouped_lora"]

Parts = Sequence[tuple[int, int, int, Tensor, Tensor, float]]

#: Rows for each part up to which torch differentiates the calls one by one. On a CPU (768 -> 768, rank 16, 8 groups)
#: 16 rows cost 0.44 ms so and 0.56 by pieces, with the backward pass 1.3 and 1.7; 64 rows cost 1.4 ms and 1.2.
_FEW = 4


def grouped_lora(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    groups: Groups,
    parts: Parts,
    *,
    dropout: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:
    """See ``peftx_kernels.grouped_lora``."""
    check_rate(dropout)
    check_parts(x, weight, groups, parts)
    rate = dropout if training else 0.0
    if not parts:
        return F.linear(x, weight, bias)
    if is_tracing():
        return _functional(x, weight, bias, groups, parts, rate)
    whole = all(stop - start == weight.shape[0] for _, start, stop, *_ in parts)
    if groups.rows <= _FEW * len(parts) and whole and source is None:
        return _few(x, weight, bias, groups, parts, rate)
    plan = _plan(x, groups, parts, rate, source)
    factors = [factor for part in parts for factor in part[3:5]]
    return _GroupedLoRA.apply(x, weight, bias, plan, *factors)


def check_parts(x: Tensor, weight: Tensor, groups: Groups, parts: Parts) -> None:
    """Raise ValueError where the groups are not those of x's rows, or a part does not fit."""
    out, width = weight.shape
    if groups.rows * width != x.numel():
        raise ValueError(
            f"x {tuple(x.shape)} has {x.numel() // max(width, 1)} rows and the groups have {groups.rows}; give the "
            "groups of every row, groups.spread(T) for x (B, T, in)"
        )
    for group, start, stop, a, b, _ in parts:
        if not 0 <= group < groups.n:
            raise ValueError(f"a part is of group {group}; expected 0 to {groups.n - 1}")
        if not 0 <= start < stop <= out or a.shape[1:] != (width,) or b.shape != (stop - start, a.shape[0]):
            raise ValueError(
                f"rows {start}:{stop} of a weight {tuple(weight.shape)} cannot take a {tuple(a.shape)} and "
                f"b {tuple(b.shape)}; expected a (R, {width}) and b ({stop - start}, R)"
            )


def _functional(
    x: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups, parts: Parts, rate: float
) -> Tensor:
    """The same equation with shapes that do not depend on the ids: all ranks for all rows, the foreign ones zeroed.

    A compiler would otherwise trace again for every new mixture.
    """
    y = F.linear(x, weight, bias)
    dropped = F.dropout(x, rate) if rate > 0 else x
    ids = groups.ids_on(x.device).view(x.shape[:-1])
    for group, start, stop, a, b, scale in parts:
        low = F.linear(dropped, a.to(x.dtype)) * (ids == group)[..., None].to(x.dtype)
        delta = scale * F.linear(low, b.to(x.dtype))
        y = y + (delta if stop - start == weight.shape[0] else F.pad(delta, (start, weight.shape[0] - stop)))
    return y


def _few(x: Tensor, weight: Tensor, bias: Tensor | None, groups: Groups, parts: Parts, rate: float) -> Tensor:
    """A part's rows gathered, multiplied twice and added, as anybody would write it. Mostly fewer calls than pieces."""
    y = F.linear(x, weight, bias)
    flat_y, flat_x, dtype = as_rows(y), as_rows(x), compute_dtype(x)
    kept = 1.0
    if rate > 0:
        flat_x, kept = flat_x * keep_mask(flat_x, rate, draw_seed()), kept_fraction(rate)
    members = groups.members(x.device)
    for group, _, _, a, b, scale in parts:
        # also of no rows: its factors then get gradients of zero
        low = F.linear(flat_x.index_select(0, members[group]), a if a.dtype is dtype else a.to(dtype))
        delta = F.linear(low, b if b.dtype is dtype else b.to(dtype))
        flat_y = flat_y.index_add(0, members[group], delta, alpha=scale / kept)
    return flat_y.view(y.shape)


@dataclass(frozen=True, slots=True)
class _Place:
    """A part within its group: its number among all parts, rows of W, ranks low..high of the group's stacked A."""

    part: int
    start: int
    stop: int
    low: int
    high: int
    scale: float  # the part's scale, times 1 / kept fraction under dropout


@dataclass(frozen=True, slots=True)
class _Stack:
    """The parts of one group."""

    places: list[_Place] = field(default_factory=list)

    @property
    def rank(self) -> int:
        return self.places[-1].high


@dataclass(frozen=True, slots=True)
class _Plan:
    stacks: dict[int, _Stack]  # by group
    pieces: tuple[Piece, ...]  # those of groups that have parts
    dtype: torch.dtype
    rate: float
    seed: int
    source: ActivationSource | None


def _plan(x: Tensor, groups: Groups, parts: Parts, rate: float, source: ActivationSource | None) -> _Plan:
    kept = kept_fraction(rate) if rate > 0 else 1.0
    stacks: dict[int, _Stack] = {}
    for number, (group, start, stop, a, _, scale) in enumerate(parts):
        places = stacks.setdefault(group, _Stack()).places
        low = places[-1].high if places else 0
        places.append(_Place(number, start, stop, low, low + a.shape[0], scale / kept))
    pieces = tuple(piece for piece in groups.pieces(x.device) if piece.group in stacks)
    return _Plan(stacks, pieces, compute_dtype(x), rate, draw_seed() if rate > 0 else 0, source)


class _Factors:
    """A and B in the type of the products, each made once a pass: by group, stacked, and by part."""

    def __init__(self, plan: _Plan, factors: Sequence[Tensor]) -> None:
        self.plan, self.factors = plan, factors
        self._a: dict[int, Tensor] = {}
        self._b: dict[int, Tensor] = {}

    def a(self, group: int) -> Tensor:  # (sum of R, in)
        if group not in self._a:
            downs = [self.factors[2 * place.part] for place in self.plan.stacks[group].places]
            self._a[group] = (downs[0] if len(downs) == 1 else torch.cat(downs)).to(self.plan.dtype)
        return self._a[group]

    def b(self, part: int) -> Tensor:  # (stop - start, R)
        if part not in self._b:
            self._b[part] = self.factors[2 * part + 1].to(self.plan.dtype)
        return self._b[part]


class _GroupedLoRA(torch.autograd.Function):
    """apply(x, weight, bias, plan, a1, b1, a2, b2, ...) -> y."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan, *factors: Tensor
    ) -> Tensor:
        with autocast_off(x):
            x_run = x.to(plan.dtype)
            y = own_linear(x_run, weight.to(plan.dtype), None if bias is None else bias.to(plan.dtype))
            s = _add_all(as_rows(y), _dropped(as_rows(x_run), plan), _Factors(plan, factors))
        _, needs_weight, _, _, *needs_factors = ctx.needs_input_grad
        ctx.reads_x = needs_weight or any(needs_factors[0::2])
        # x_run and not x: under autocast that copy is half as large, and without it they are one tensor.
        keep_x = ctx.reads_x and plan.source is None
        keep_s = any(needs_factors[1::2])
        ctx.save_for_backward(x_run if keep_x else None, s if keep_s else None, weight, *factors)
        ctx.plan, ctx.x_shape, ctx.x_dtype = plan, x.shape, x.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, s, weight, *factors = ctx.saved_tensors
        plan: _Plan = ctx.plan
        needs_x, needs_weight, needs_bias, _, *needs = ctx.needs_input_grad
        needs_a = any(needs[0::2])
        d_x = d_weight = d_bias = None
        with autocast_off(grad):
            d_y = as_rows(grad)
            flat_x: Any = _input(x, plan) if ctx.reads_x else None
            if needs_x:
                d_x = d_y @ weight.to(plan.dtype)
            mask = None
            if plan.rate > 0 and (needs_x or needs_a):
                mask = keep_mask(d_y.new_empty((d_y.shape[0], weight.shape[1])), plan.rate, plan.seed)
            sums = _Sums(plan, factors, needs)
            if needs_x or any(needs):
                dropped = flat_x if mask is None or not needs_a else flat_x * mask
                _back_all(d_y, d_x, dropped, s, mask, sums, _Factors(plan, factors))
            if d_x is not None:
                d_x = d_x.view(ctx.x_shape).to(ctx.x_dtype)
            if needs_weight:
                d_weight = (d_y.t() @ flat_x).to(weight.dtype)
            if needs_bias:
                d_bias = d_y.sum(0).to(ctx.bias_dtype)
            return d_x, d_weight, d_bias, None, *sums.finish()


def _add_all(flat_y: Tensor, flat_x: Tensor, factors: _Factors) -> Tensor:
    """Add every correction to y in place and return all S, one behind the other."""
    plan = factors.plan
    kept = flat_x.new_empty(sum(plan.stacks[piece.group].rank * piece.count for piece in plan.pieces))
    for piece, s in _low_rank(kept, plan):
        torch.mm(factors.a(piece.group), _rows_of(flat_x, piece).t(), out=s)
        for place in plan.stacks[piece.group].places:
            low, b = _ranks(s, place), factors.b(place.part)
            columns = _columns(flat_y, place)
            if isinstance(piece.rows, slice):
                columns[piece.rows].addmm_(low.t(), b.t(), alpha=place.scale)
            else:
                columns.index_add_(0, piece.rows, low.t() @ b.t(), alpha=place.scale)
    return kept


def _back_all(
    d_y: Tensor,
    d_x: Tensor | None,
    dropped: Tensor | None,
    s: Tensor | None,
    mask: Tensor | None,
    sums: _Sums,
    factors: _Factors,
) -> None:
    """Go through the pieces once: add to dX in place, and to the sums over the rows of each group."""
    plan = factors.plan
    kept = [None] * len(plan.pieces) if s is None else [low for _, low in _low_rank(s, plan)]
    for piece, s_piece in zip(plan.pieces, kept, strict=True):
        stack = plan.stacks[piece.group]
        d_piece = _rows_of(d_y, piece)
        if d_x is not None or sums.any_a(stack):
            d_s = d_y.new_empty((stack.rank, piece.count))
            for place in stack.places:
                out = _ranks(d_s, place)
                d_columns = _columns(d_piece, place)
                # beta = 0: `out` is only written, so its uninitialised memory is never read
                torch.addmm(out, factors.b(place.part).t(), d_columns.t(), beta=0, alpha=place.scale, out=out)
            if d_x is not None:
                _add_to_x(d_x, d_s, factors.a(piece.group), mask, piece)
            if dropped is not None and sums.any_a(stack):
                sums.add_a(piece.group, d_s, _rows_of(dropped, piece))
        for place in stack.places:
            sums.add_b(place, s_piece, d_piece)


def _add_to_x(d_x: Tensor, d_s: Tensor, a: Tensor, mask: Tensor | None, piece: Piece) -> None:
    if isinstance(piece.rows, slice) and mask is None:
        d_x[piece.rows].addmm_(d_s.t(), a)
    elif isinstance(piece.rows, slice):
        assert mask is not None
        d_x[piece.rows].addcmul_(d_s.t() @ a, mask[piece.rows])
    else:
        product = d_s.t() @ a
        d_x.index_add_(0, piece.rows, product if mask is None else product.mul_(mask[piece.rows]))


class _Sums:
    """Gradients of the factors while the pieces are gone through, in fp32 at least."""

    def __init__(self, plan: _Plan, factors: Sequence[Tensor], needs: Sequence[bool]) -> None:
        self.plan, self.factors, self.needs = plan, factors, needs
        self.a: dict[int, Tensor] = {}  # by group, stacked
        self.b: dict[int, Tensor] = {}  # by part, (R, stop - start)

    def any_a(self, stack: _Stack) -> bool:
        return any(self.needs[2 * place.part] for place in stack.places)

    def add_a(self, group: int, d_s: Tensor, x: Tensor) -> None:
        self.a[group] = _more(self.a.get(group), d_s, x)

    def add_b(self, place: _Place, s: Tensor | None, d_y: Tensor) -> None:
        if self.needs[2 * place.part + 1]:
            assert s is not None
            known = self.b.get(place.part)
            self.b[place.part] = _more(known, _ranks(s, place), _columns(d_y, place))

    def finish(self) -> Iterator[Tensor | None]:
        """The gradients in the order of the factors."""
        places = {place.part: (group, place) for group, s in self.plan.stacks.items() for place in s.places}
        for part in range(len(places)):
            group, place = places[part]
            a, b = self.factors[2 * part : 2 * part + 2]
            if not self.needs[2 * part]:
                yield None
            elif group in self.a:
                yield self.a[group][place.low : place.high].to(a.dtype)
            else:
                yield torch.zeros_like(a)
            if not self.needs[2 * part + 1]:
                yield None
            elif part in self.b:
                yield torch.mul(self.b[part].t(), place.scale, out=torch.empty_like(b))
            else:
                yield torch.zeros_like(b)


def _more(total: Tensor | None, one: Tensor, other: Tensor) -> Tensor:
    """total + one @ other: the sums of half-precision pieces are kept in fp32, where each is rounded once only."""
    if total is None:
        return one @ other
    if total.dtype is wide(one.dtype) is one.dtype:
        return total.addmm_(one, other)
    return total.to(wide(one.dtype)).add_(one @ other)


def _low_rank(kept: Tensor, plan: _Plan) -> Iterator[tuple[Piece, Tensor]]:
    """Every piece with its (R, T) part of the flat tensor that holds all of them."""
    at = 0
    for piece in plan.pieces:
        rank = plan.stacks[piece.group].rank
        yield piece, kept[at : at + rank * piece.count].view(rank, piece.count)
        at += rank * piece.count


def _rows_of(t: Tensor, piece: Piece) -> Tensor:
    return t[piece.rows] if isinstance(piece.rows, slice) else t.index_select(0, piece.rows)


def _columns(t: Tensor, place: _Place) -> Tensor:
    return t if place.start == 0 and place.stop == t.shape[1] else t[:, place.start : place.stop]


def _ranks(s: Tensor, place: _Place) -> Tensor:
    return s if place.low == 0 and place.high == s.shape[0] else s[place.low : place.high]


def _input(x: Tensor | None, plan: _Plan) -> Tensor:
    if plan.source is not None:
        return as_rows(plan.source.recompute()).to(plan.dtype)
    assert x is not None
    return as_rows(x)


def _dropped(flat_x: Tensor, plan: _Plan) -> Tensor:
    """Zero the dropped entries; 1 / kept fraction is in the parts' scales."""
    return flat_x * keep_mask(flat_x, plan.rate, plan.seed) if plan.rate > 0 else flat_x
