"""SNELL's and SNELLA's linear map by Triton kernels: no map lives longer than the product it is made for.

Forward     t of each map by counting, tiles formed again in each pass;  W + S^T, or S^T in the product's type, into
            one scratch of the layer;  the library's product
Backward    the scratch again, from t;  dX = dY (W + S^T);  G = dY^T X takes the scratch's place;  its tiles are
            contracted with the recomputed ones at once

In flight: one map in the type of the product (a layer's W + S^T, or one part's S^T), or one part's G beside partial
sums of half a float32 map or four megabytes (`sizes.blocks`). ViT-B's largest map, 768 x 3072 at d = 4: 9.4 MB in
float32, 4.7 in half precision, and 4.4 for the sums; searching t takes 32 KB. Kept: what the eager form keeps, with
each t the power of two of float16, and with a mixture two numbers for each column.

LoRA of rank 8 has nothing of that in flight, but keeps S for each layer. Peak allocation of a training step of ViT-B
beside LoRA's, counting buffers: 1.009 in float32 with a batch of 8; all in bfloat16 1.012 with a batch of 8, and 1.002
with one of 32.

Float64, maps of 2^31 entries and more, and tensors that are not on a GPU (but for the interpreter) take the eager form;
under ``torch.func`` transforms the functional one runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from peftx_kernels.activation import ActivationSource
from peftx_kernels.availability import interpreting
from peftx_kernels.context import as_rows, autocast_off, compute_dtype, is_tracing, own_linear, wide
from peftx_kernels.dropout import check_rate, draw_seed
from peftx_kernels.ops.snell_linear import op
from peftx_kernels.ops.snell_linear.functional import functional_linear, functional_update
from peftx_kernels.ops.snell_linear.inputs import (
    Drops,
    add_masked,
    add_product,
    columns_of,
    dropped_input,
    rebuilt_input,
)
from peftx_kernels.ops.snell_linear.launch import (
    FLOATS,
    INTS,
    contract,
    form,
    form_again,
    noted,
    numbers,
    place,
)
from peftx_kernels.ops.snell_linear.part import SnellPart, check_parts

__all__ = ["fits", "snell_linear", "snell_update"]

_TYPES = frozenset({torch.float32, torch.bfloat16, torch.float16})
_MOST_ENTRIES = (1 << 31) - 1
_ANYWHERE = interpreting()  # the interpreter takes tensors of any device


def fits(name: str, *arguments: Any, **options: Any) -> bool:
    """Whether `auto` gives this call to the kernels.

    By counting launches (not measured): a map of any size takes five in the forward pass and three in the backward one,
    with a mixture two more each; the eager form takes several times that, so on a GPU there is no size at which it
    would win.
    """
    if name == "snell_update":
        (part,) = arguments
        return bool(part.a.is_cuda) and _can(wide(part.a.dtype), (part,))
    x, _, _, parts = arguments
    return bool(x.is_cuda) and _can(compute_dtype(x), tuple(parts))


def _can(dtype: torch.dtype, parts: tuple[SnellPart, ...]) -> bool:
    if dtype not in _TYPES or not parts:
        return False
    here = all(_ANYWHERE or (p.a.is_cuda and p.b.is_cuda) for p in parts)
    return here and all(p.a.shape[1] * p.b.shape[1] <= _MOST_ENTRIES for p in parts)


def _transformed() -> bool:
    """Whether ``torch.func`` is at work: it has no rules for our operations. Not asked where a compiler traces."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


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
    dtype = compute_dtype(x)
    rates = (dropout, drop_path) if training else (0.0, 0.0)
    if not _can(dtype, given):
        return op.snell_linear(
            x, weight, bias, given, dropout=rates[0], drop_path=rates[1], training=training, source=source
        )
    if _transformed():
        return functional_linear(x, weight, bias, given, *rates)
    out = weight.shape[0]
    if not is_tracing():
        drops = Drops(*rates, *(draw_seed() if rate > 0 else 0 for rate in rates))
        return _apply(x, weight, bias, given, _Plan(*_described(given), dtype, out, drops, source))
    plan = _Plan(*_described(given), dtype, out, Drops(0.0, 0.0, 0, 0), None)
    if rates == (0.0, 0.0):
        return _apply(x, weight, bias, given, plan)
    # a seed cannot be drawn here; the compiler plans what of the mask it keeps
    dropped = F.dropout(x, dropout) if dropout > 0 else x
    if drop_path > 0:
        samples = x.new_ones((x.shape[0] if x.dim() > 1 else 1, *(1,) * (x.dim() - 1)))
        dropped = dropped * F.dropout(samples, drop_path)
    return F.linear(x, weight, bias) + _apply(dropped, None, None, given, plan)


def snell_update(part: SnellPart) -> Tensor:
    """See ``peftx_kernels.snell_update``."""
    check_parts((part,), part.stop, part.a.shape[1])
    if not _can(wide(part.a.dtype), (part,)):
        return op.snell_update(part)
    if _transformed():
        return functional_update(part, wide(part.a.dtype))
    ints, floats = _described((part,))
    function = _TracedUpdate if is_tracing() else _FusedUpdate
    update: Tensor = function.apply(ints, floats, *_tensors((part,)))
    return update


class _Plan(NamedTuple):
    """What both passes are told beside tensors."""

    ints: tuple[int, ...]  # of each part, see `launch.numbers`
    floats: tuple[float, ...]
    dtype: torch.dtype
    out: int
    drops: Drops
    source: ActivationSource | None

    @property
    def merges(self) -> bool:
        """Whether one product with W + S^T does; in half precision the sum would round to W."""
        return not self.drops and self.dtype is torch.float32


def _described(parts: tuple[SnellPart, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    ints, floats = numbers(parts)
    return tuple(ints), tuple(floats)


def _tensors(parts: tuple[SnellPart, ...]) -> list[Tensor]:
    """What operations take, part by part: a, b, the mixture, the threshold's place where it is a tensor."""
    found: list[Tensor] = []
    for part in parts:
        where = place(part)
        found += [part.a, part.b, *(part.mix or ()), *(() if where is None else (where,))]
    return found


class _One(NamedTuple):
    """One part as an operation takes it."""

    start: int
    stop: int
    mixed: bool
    at: int  # its first tensor's place among all of them
    tensors: list[Tensor]
    ints: list[int]
    floats: list[float]

    @property
    def trained(self) -> int:
        """How many of its tensors may have gradients."""
        return 5 if self.mixed else 2


def _each(plan: _Plan, tensors: Sequence[Tensor]) -> list[_One]:
    found, at = [], 0
    for index in range(len(plan.ints) // INTS):
        ints = list(plan.ints[INTS * index : INTS * (index + 1)])
        count = 2 + 3 * bool(ints[3]) + ints[4]
        floats = list(plan.floats[FLOATS * index : FLOATS * (index + 1)])
        one = _One(ints[0], ints[1], bool(ints[3]), at, list(tensors[at : at + count]), ints, floats)
        found.append(one)
        at += count
    return found


def _notes(plan: _Plan, tensors: Sequence[Tensor], notes: Sequence[Tensor]) -> Sequence[Tensor]:
    """The notes of each part; of a merged layer they are in one vector."""
    if len(notes) == len(plan.ints) // INTS:
        return notes
    sizes = [noted(one.tensors[0].shape[1], one.mixed) for one in _each(plan, tensors)]
    return notes[0].split(sizes)


def _apply(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, parts: tuple[SnellPart, ...], plan: _Plan
) -> Tensor:
    function = _TracedLinear if is_tracing() else _FusedLinear
    y: Tensor = function.apply(x, weight, bias, plan, *_tensors(parts))
    return y


class _TracedLinear(torch.autograd.Function):
    """apply(x, weight, bias, plan, a1, b1, [alpha1, gamma1, beta1,] [place1,] a2, ...) -> y.

    Without a weight it is the updates' product alone.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, plan: _Plan, *tensors: Tensor
    ) -> Tensor:
        linear = F.linear if is_tracing() else own_linear
        with autocast_off(x):
            x_run = x.to(plan.dtype)
            run_bias = None if bias is None else bias.to(plan.dtype)
            if weight is not None and plan.merges:
                total, note = form(
                    weight.to(plan.dtype), list(tensors), list(plan.ints), list(plan.floats), plan.dtype
                )
                y = linear(x_run, total, run_bias)
                notes = [note]
            else:
                if weight is None:
                    y = x_run.new_zeros((*x.shape[:-1], plan.out))
                else:
                    y = linear(x_run, weight.to(plan.dtype), run_bias)
                flat_y = as_rows(y)
                dropped = dropped_input(as_rows(x_run), x.shape, plan.drops)
                notes = []
                for one in _each(plan, tensors):
                    update, note = form(None, one.tensors, one.ints, one.floats, plan.dtype)
                    power = note[1] if plan.dtype is torch.float16 else None
                    add_product(columns_of(flat_y, one.start, one.stop), dropped, update.t(), power)
                    notes.append(note)
                    del update
        needs = ctx.needs_input_grad
        ctx.reads_x = needs[1] or any(needs[4:])
        keep_x = ctx.reads_x and plan.source is None
        ctx.save_for_backward(x_run if keep_x else None, weight, *notes, *tensors)
        ctx.plan = plan
        ctx.noted = len(notes)
        ctx.x_shape, ctx.x_dtype = x.shape, x.dtype
        ctx.bias_dtype = None if bias is None else bias.dtype
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *rest = ctx.saved_tensors
        plan: _Plan = ctx.plan
        notes, tensors = rest[: ctx.noted], rest[ctx.noted :]
        needs = ctx.needs_input_grad
        d_x = d_weight = d_bias = None
        found: list[Tensor | None] = [None] * len(tensors)
        with autocast_off(grad):
            d_y = as_rows(grad)
            if needs[0] and weight is not None and plan.merges:
                ints, floats = list(plan.ints), list(plan.floats)
                d_x = d_y @ form_again(
                    weight.to(plan.dtype), list(tensors), notes[0], ints, floats, plan.dtype
                )
            elif needs[0]:
                d_x = _separate_d_x(d_y, weight, tensors, notes, plan, ctx.x_shape)
            flat_x: Any = rebuilt_input(x, plan.source, plan.dtype) if ctx.reads_x else None
            if needs[1]:
                assert weight is not None
                d_weight = (d_y.t() @ flat_x).to(weight.dtype)
            if any(needs[4:]):
                dropped = dropped_input(flat_x, ctx.x_shape, plan.drops)
                found = _factor_gradients(d_y, dropped, tensors, notes, plan, needs[4:])
            if needs[2]:
                d_bias = d_y.sum(0).to(ctx.bias_dtype)
            if d_x is not None:
                d_x = d_x.view(ctx.x_shape).to(ctx.x_dtype)
        return d_x, d_weight, d_bias, None, *found


class _FusedLinear(_TracedLinear):
    """The same outside of compilers, which do not follow what refuses a second derivative."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _TracedLinear.backward(ctx, grad)


def _separate_d_x(
    d_y: Tensor,
    weight: Tensor | None,
    tensors: Sequence[Tensor],
    notes: Sequence[Tensor],
    plan: _Plan,
    shape: torch.Size,
) -> Tensor:
    """dX = dY W + mask (dY S^T), a part at a time."""
    if weight is None:
        d_x = d_y.new_zeros((d_y.shape[0], shape[-1]))
    else:
        d_x = d_y @ weight.to(plan.dtype)
    mask = plan.drops.mask(d_x, shape) if plan.drops else None
    for one, note in zip(_each(plan, tensors), notes, strict=True):
        update = form_again(None, one.tensors, note, one.ints, one.floats, plan.dtype)
        power = note[1] if plan.dtype is torch.float16 else None
        add_masked(d_x, columns_of(d_y, one.start, one.stop), update, power, mask)
        del update
    return d_x


def _factor_gradients(
    d_y: Tensor,
    dropped: Tensor,
    tensors: Sequence[Tensor],
    notes: Sequence[Tensor],
    plan: _Plan,
    needs: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of `tensors`, where they are needed: G = dY^T X of one part at a time, and its contraction."""
    found: list[Tensor | None] = [None] * len(tensors)
    for one, note in zip(_each(plan, tensors), _notes(plan, tensors, notes), strict=True):
        mine = slice(one.at, one.at + one.trained)
        if any(needs[mine]):
            gradient = columns_of(d_y, one.start, one.stop).t() @ dropped
            results = contract(gradient, one.tensors, note, one.ints, one.floats)
            del gradient
            found[mine] = _shared_out(results, one, needs[mine])
    return found


def _shared_out(
    results: tuple[Tensor, Tensor, Tensor], one: _One, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Gradients of one part's tensors, in their shapes and types, where they are wanted."""
    d_a, d_b, d_mix = results
    gradients = [d_a, d_b, *(d_mix.unbind() if one.mixed else ())]
    return [
        g.view(t.shape).to(t.dtype) if want else None
        for g, t, want in zip(gradients, one.tensors[: one.trained], wanted, strict=True)
    ]


class _TracedUpdate(torch.autograd.Function):
    """apply(ints, floats, a, b, [alpha, gamma, beta,] [place]) -> S^T, dense; keeps the factors and t."""

    @staticmethod
    def forward(ctx: Any, ints: tuple[int, ...], floats: tuple[float, ...], *tensors: Tensor) -> Tensor:
        with autocast_off(tensors[0]):
            update, notes = form(None, list(tensors), list(ints), list(floats), torch.float32)
        ctx.save_for_backward(notes, *tensors)
        ctx.ints, ctx.floats = ints, floats
        return update

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        notes, *tensors = ctx.saved_tensors
        mixed = bool(ctx.ints[3])
        one = _One(0, 0, mixed, 0, list(tensors), list(ctx.ints), list(ctx.floats))
        with autocast_off(grad):
            results = contract(grad, one.tensors, notes, one.ints, one.floats)
        wanted = ctx.needs_input_grad[2 : 2 + one.trained]
        found = _shared_out(results, one, wanted)
        return None, None, *found, *[None] * (len(tensors) - one.trained)


class _FusedUpdate(_TracedUpdate):
    """The same outside of compilers, which do not follow what refuses a second derivative."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _TracedUpdate.backward(ctx, grad)
