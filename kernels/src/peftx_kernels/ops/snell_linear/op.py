"""SNELL's and SNELLA's linear map: thin factors and one number a map are all that lives between the passes.

Forward     V from A, B in blocks of rows;  t = quantile_s(|V|);  Y = X (W + S^T)^T + bias: one product
Backward    the blocks again;  dX = dY (W + S^T);  G = dY^T X;  dV = G K;  R_h = +-c dV / D_h, contracted at once

W + S^T is formed in float32 and only where the product runs in float32 or wider: |S| starts near 1e-6, below half a
unit in the last place of a bfloat16 or float16 weight, so a sum rounded to those would be W. There, and with dropout,
S has a product of its own; in float16, where 1e-6 is subnormal, S is first multiplied by a power of two and the product
divided by it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from peftx_kernels.activation import ActivationSource
from peftx_kernels.context import as_rows, autocast_off, compute_dtype, is_tracing, own_linear, wide
from peftx_kernels.dropout import check_rate, draw_seed
from peftx_kernels.ops.snell_linear.functional import functional_linear, functional_update
from peftx_kernels.ops.snell_linear.inputs import (
    Drops,
    add_masked,
    add_product,
    columns_of,
    dropped_input,
    rebuilt_input,
    tensors_of,
)
from peftx_kernels.ops.snell_linear.part import SnellPart, check_parts
from peftx_kernels.ops.snell_linear.tiles import (
    Block,
    Contraction,
    Kernel,
    keep_factor,
    put_update,
    threshold,
)

__all__ = ["snell_linear", "snell_update"]

_MERGES = frozenset({torch.float32, torch.float64})


def snell_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    parts: Sequence[SnellPart],
    *,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    training: bool = False,
    source: ActivationSource | None = None,
) -> Tensor:
    """See ``peftx_kernels.snell_linear``."""
    check_rate(dropout)
    check_rate(drop_path)
    given = tuple(parts)
    check_parts(given, weight.shape[0], weight.shape[1])
    rates = (dropout, drop_path) if training else (0.0, 0.0)
    if is_tracing():
        return functional_linear(x, weight, bias, given, *rates)
    if not given:
        return F.linear(x, weight, bias)
    dtype = compute_dtype(x)
    seeds = tuple(draw_seed() if rate > 0 else 0 for rate in rates)
    plan = _Plan(given, dtype, wide(dtype), Drops(*rates, *seeds), source)
    return _SnellLinear.apply(x, weight, bias, plan, *tensors_of(given))


def snell_update(part: SnellPart) -> Tensor:
    """See ``peftx_kernels.snell_update``."""
    check_parts((part,), part.stop, part.a.shape[1])
    if is_tracing():
        return functional_update(part, wide(part.a.dtype))
    return _SnellUpdate.apply(part, *tensors_of((part,)))


@dataclass(frozen=True, slots=True)
class _Plan:
    parts: tuple[SnellPart, ...]  # their tensors are replaced by the saved ones in the backward
    dtype: torch.dtype
    high: torch.dtype
    drops: Drops
    source: ActivationSource | None

    @property
    def merges(self) -> bool:
        """Whether one product with W + S^T does."""
        return not self.drops and self.dtype in _MERGES


def _with(parts: Sequence[SnellPart], tensors: Sequence[Tensor]) -> list[SnellPart]:
    """The parts with their tensors replaced, in the order of `tensors_of`."""
    left, found = list(tensors), []
    for part in parts:
        a, b, mix = left.pop(0), left.pop(0), None
        if part.mix is not None:
            mix = (left.pop(0), left.pop(0), left.pop(0))
        found.append(part._replace(a=a, b=b, mix=mix))
    return found


def _bare(parts: Sequence[SnellPart]) -> tuple[SnellPart, ...]:
    """The parts without their tensors: a node may keep these, and the graph stays free of cycles and leaves."""
    none: Any = None
    return tuple(p._replace(a=none, b=none, mix=None if p.mix is None else (none,) * 3) for p in parts)


class _SnellLinear(torch.autograd.Function):
    """apply(x, weight, bias, plan, a1, b1, [alpha1, gamma1, beta1,] a2, ...) -> y."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, plan: _Plan, *factors: Tensor
    ) -> Tensor:
        with autocast_off(x):
            x_run = x.to(plan.dtype)
            run_bias = None if bias is None else bias.to(plan.dtype)
            parts = _with(plan.parts, factors)
            if plan.merges:
                merged = _Merged(weight, plan)
                limits = [_form(Kernel(part, plan.high), merged) for part in parts]
                y = own_linear(x_run, merged.total, run_bias)
            else:
                y = own_linear(x_run, weight.to(plan.dtype), run_bias)
                flat_y = as_rows(y)
                dropped = dropped_input(as_rows(x_run), x.shape, plan.drops)
                limits = []
                for part in parts:
                    update, scale, t = _separate(Kernel(part, plan.high), plan)
                    add_product(columns_of(flat_y, part.start, part.stop), dropped, update.t(), scale)
                    limits.append(t)
        _, needs_weight, _, _, *needs_factors = ctx.needs_input_grad
        ctx.reads_x = needs_weight or any(needs_factors)
        keep_x = ctx.reads_x and plan.source is None
        # one number a map: the backward thins exactly what the forward did, and searches nothing
        ctx.save_for_backward(x_run if keep_x else None, torch.stack(limits), weight, *factors)
        ctx.plan = _Plan(_bare(plan.parts), *(getattr(plan, f) for f in _Plan.__slots__[1:]))
        ctx.x_shape, ctx.x_dtype = x.shape, x.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, limits, weight, *factors = ctx.saved_tensors
        plan: _Plan = ctx.plan
        needs_x, needs_weight, needs_bias, _, *needs_factors = ctx.needs_input_grad
        d_x = d_weight = d_bias = None
        d_factors: list[Tensor | None] = []
        with autocast_off(grad):
            d_y = as_rows(grad)
            flat_x: Any = rebuilt_input(x, plan.source, plan.dtype) if ctx.reads_x else None
            dropped = dropped_input(flat_x, ctx.x_shape, plan.drops) if any(needs_factors) else None
            mask = None
            if needs_x and plan.drops:
                mask = plan.drops.mask(d_y.new_empty((d_y.shape[0], weight.shape[1])), ctx.x_shape)
            merged = _Merged(weight, plan) if needs_x and plan.merges else None
            if needs_x and not plan.merges:
                d_x = d_y @ weight.to(plan.dtype)
            at = 0
            for part, t in zip(_with(plan.parts, factors), limits, strict=True):
                count = 2 if part.mix is None else 5
                needed = needs_factors[at : at + count]
                at += count
                kernel = Kernel(part, plan.high)
                d_rows = columns_of(d_y, part.start, part.stop)
                if needs_x and merged is None:
                    assert d_x is not None
                    update, scale, _ = _separate(kernel, plan, t)
                    add_masked(d_x, d_rows, update, scale, mask)
                    del update
                if any(needed):
                    assert dropped is not None
                    gradient = (d_rows.t() @ dropped).to(plan.high)
                    found = _contract(kernel, gradient, t, merged)
                    del gradient
                else:
                    found = [None] * count
                    if merged is not None:
                        _form(kernel, merged, t)
                d_factors += [
                    grad.view(f.shape).to(f.dtype) if need and grad is not None else None
                    for grad, need, f in zip(found, needed, factors[at - count : at], strict=True)
                ]
            if merged is not None:
                d_x = d_y @ merged.total
            if needs_weight:
                d_weight = (d_y.t() @ flat_x).to(weight.dtype)
            if needs_bias:
                d_bias = d_y.sum(0).to(ctx.bias_dtype)
            if d_x is not None:
                d_x = d_x.view(ctx.x_shape).to(ctx.x_dtype)
        return d_x, d_weight, d_bias, None, *d_factors


class _SnellUpdate(torch.autograd.Function):
    """apply(part, a, b, [alpha, gamma, beta]) -> S^T, dense; keeps the factors and t."""

    @staticmethod
    def forward(ctx: Any, part: SnellPart, *factors: Tensor) -> Tensor:
        with autocast_off(part.a):
            kernel = Kernel(part, wide(part.a.dtype))
            out = kernel.a.new_empty((kernel.rows, kernel.width))
            t = _finish(kernel, out, None, out, None)
        ctx.save_for_backward(t, *factors)
        ctx.part = _bare((part,))[0]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        t, *factors = ctx.saved_tensors
        (part,) = _with((ctx.part,), factors)
        with autocast_off(grad):
            kernel = Kernel(part, wide(part.a.dtype))
            gradient = grad.to(kernel.dtype, copy=True, memory_format=torch.contiguous_format)
            found = _contract(kernel, gradient, t, None)
        needed = ctx.needs_input_grad[1:]
        return None, *(
            g.view(f.shape).to(f.dtype) if n and g is not None else None
            for g, n, f in zip(found, needed, factors, strict=True)
        )


class _Merged:
    """W + S^T of a whole weight, filled part by part. Its own rows hold V before they hold the sum."""

    def __init__(self, weight: Tensor, plan: _Plan) -> None:
        covered = sorted((part.start, part.stop) for part in plan.parts)
        self.apart = all(stop <= start for (_, stop), (start, _) in itertools.pairwise(covered))
        self.weight = weight
        self.total = torch.empty(weight.shape, dtype=plan.dtype, device=weight.device)
        if not self.apart:  # overlapping parts add up, so none of them may use the rows
            self.total.copy_(weight)
            return
        at = 0
        for start, stop in (*covered, (weight.shape[0], weight.shape[0])):
            if at < start:
                self.total[at:start].copy_(weight[at:start])
            at = stop

    def rows(self, part: SnellPart) -> tuple[Tensor, Tensor, Tensor]:
        """(room for V, what S^T is added to, where the sum goes)."""
        total = self.total[part.start : part.stop]
        if self.apart:
            base = self.weight[part.start : part.stop].detach()
            return total, base if base.dtype == total.dtype else base.to(total.dtype), total
        return torch.empty_like(total), total, total


def _form(kernel: Kernel, merged: _Merged, t: Tensor | None = None) -> Tensor:
    """Add a part's S^T to W in `merged`; returns t, searched for unless given."""
    room, base, out = merged.rows(kernel.part)
    return _finish(kernel, room, base, out, t)


def _limit(t: Tensor) -> float | Tensor:
    """t as the block passes take it: a number where reading it is free."""
    return float(t) if t.device.type == "cpu" else t


def _finish(kernel: Kernel, room: Tensor, base: Tensor | None, out: Tensor, t: Tensor | None) -> Tensor:
    """Write base + S^T into `out` and return t. `room` (rows, in) takes V; it may be `out`."""
    kernel.fill(room)
    part = kernel.part
    t = threshold(part, room) if t is None else t
    limit = _limit(t)
    step = max(kernel.size // kernel.width, 1)
    spare = room.new_empty((step, kernel.width))
    for top in range(0, kernel.rows, step):  # whole rows, whatever the blocks were
        rows = slice(top, top + step)
        v = room[rows]
        factor = spare[: v.shape[0]]
        if part.mode != "dense":
            keep_factor(part.mode, v, limit, factor)
        put_update(part.mode, v, factor, limit, None if base is None else base[rows], out[rows])
    return t


def _contract(kernel: Kernel, gradient: Tensor, t: Tensor, merged: _Merged | None) -> list[Tensor | None]:
    """dA, dB [, dalpha, dgamma, dbeta] from G = dL/dS^T (rows, in), which is overwritten; fills `merged` on the way."""
    part, limit = kernel.part, _limit(t)
    sums = Contraction(kernel)
    mixing = None if kernel.mix is None else _Mixing(kernel)
    spare, factors, values, *others = kernel.buffers(kernel.groups + 3)
    _, base, total = merged.rows(part) if merged is not None else (None, None, None)
    for block in kernel.blocks():
        rest, factor, v = block.room(spare), block.room(factors), block.room(values)
        distances = [
            kernel.distance(group, block, block.room(room), rest) for group, room in enumerate(others)
        ]
        kernel.combine(distances, v)
        whole = v if mixing is None else mixing.mix(block, v, rest)
        d_v = block.of(gradient)
        if part.mode != "dense":
            keep_factor(part.mode, whole, limit, factor)
            d_v.mul_(factor)
        if base is not None and total is not None:
            put_update(part.mode, whole, factor, limit, block.of(base), block.of(total))
        if mixing is not None:
            mixing.unmix(v, rest, d_v)
        sums.add(block, distances, d_v)
    return [*sums.result(), *(() if mixing is None else mixing.result())]


class _Mixing:
    """The softmax term forwards and backwards, for blocks of whole columns.

    With p the softmax and G' = G K: q = sum_j G' p, dV = G' + (alpha / gamma) p (G' - q), dalpha = sum G' p,
    dbeta = sum G', dgamma = -(alpha / gamma^2) sum p (G' - q) V.
    """

    def __init__(self, kernel: Kernel) -> None:
        assert kernel.mix is not None
        self.kernel = kernel
        self.alpha, self.gamma, _ = kernel.mix
        self._shares = kernel.buffers(1)[0]
        self._d_alpha, self._d_gamma, self._d_beta = (torch.zeros_like(self.alpha) for _ in range(3))

    def mix(self, block: Block, v: Tensor, out: Tensor) -> Tensor:
        """Write V' into `out`."""
        self._p = self.kernel.shares(v, block.room(self._shares))
        return self.kernel.mixed(v, self._p, out)

    def unmix(self, v: Tensor, spare: Tensor, d_v: Tensor) -> None:
        """Turn the gradient of V' into that of V, in place."""
        q = torch.mul(d_v, self._p, out=spare).sum(0)
        self._d_alpha += q.sum()
        self._d_beta += d_v.sum()
        self._p.mul_(torch.sub(d_v, q, out=spare))
        # V + beta does for V: p (G' - q) adds up to nothing over the outputs
        self._d_gamma += torch.dot(self._p.view(-1), v.view(-1))
        d_v.addcmul_(self._p, self.alpha / self.gamma)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """(dalpha, dgamma, dbeta)."""
        return self._d_alpha, -self.alpha / self.gamma.square() * self._d_gamma, self._d_beta


def _separate(kernel: Kernel, plan: _Plan, t: Tensor | None = None) -> tuple[Tensor, Tensor | None, Tensor]:
    """(S^T in the dtype of the product, what the product is to be multiplied by, t)."""
    out = kernel.a.new_empty((kernel.rows, kernel.width))
    t = _finish(kernel, out, None, out, t)
    if plan.dtype is not torch.float16:
        return out.to(plan.dtype), None, t
    low, high = torch.aminmax(out)
    # largest entry between 1/2 and 1; an exact power of two, found without reading a number on the host
    exponent = torch.frexp(torch.maximum(high, -low).clamp_min(2.0**-100)).exponent
    return (
        out.mul_(torch.ldexp(out.new_ones(()), -exponent)).to(plan.dtype),
        torch.ldexp(out.new_ones(()), exponent),
        t,
    )
