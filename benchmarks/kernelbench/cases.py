"""The operations at the shapes that are timed: their inputs, ours, the plain form, the layer of `peft`, the cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

import peftx_kernels as ops
from kernelbench import costs, plain
from kernelbench.costs import Cost

__all__ = ["OPS", "Case", "cases", "checks"]

Tensors = dict[str, Tensor]
Call = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Case:
    """One operation at one shape.

    `tensors` makes inputs of a type on a device. `bound` makes of an implementation what takes them by name; `plain`
    takes them, too. `peft` makes a layer of them, which takes x alone. `costs` gives forward and backward for the bytes
    of a number.
    """

    op: str
    label: str
    tensors: Callable[[torch.dtype, torch.device], Tensors]
    bound: Callable[[Call], Call]
    plain: Call
    costs: Callable[[int], tuple[Cost, Cost]]
    peft: Callable[[Tensors], Any] | None = None

    @property
    def ours(self) -> Call:
        """The public operation, whichever implementation it runs."""
        return self.bound(getattr(ops, self.op))

    @property
    def reference(self) -> Call:
        """The definition of what is correct."""
        return self.bound(getattr(import_module(f"peftx_kernels.ops.{self.op}.reference"), self.op))


def _random(*shape: int, dtype: torch.dtype, device: torch.device, scale: float = 1.0) -> Tensor:
    return (scale * torch.randn(shape, device=device)).to(dtype)


def _layer(rows: int, inner: int, out: int, dtype: torch.dtype, device: torch.device) -> Tensors:
    make = partial(_random, dtype=dtype, device=device)
    return {
        "x": make(rows, inner).requires_grad_(),
        "weight": make(out, inner, scale=inner**-0.5),
        "bias": make(out),
    }


def _factors(inner: int, out: int, rank: int, dtype: torch.dtype, device: torch.device) -> Tensors:
    make = partial(_random, dtype=dtype, device=device)
    return {
        "a": make(rank, inner, scale=inner**-0.5).requires_grad_(),
        "b": make(out, rank, scale=0.1).requires_grad_(),
    }


def _scaled(op: Call) -> Call:
    return partial(op, scale=2.0)


def lora_linear(rows: int, inner: int, out: int, rank: int) -> Case:
    """One LoRA layer."""

    def tensors(dtype: torch.dtype, device: torch.device) -> Tensors:
        return _layer(rows, inner, out, dtype, device) | _factors(inner, out, rank, dtype, device)

    return Case(
        "lora_linear",
        f"{rows} x {inner} to {out}, rank {rank}",
        tensors,
        _scaled,
        partial(plain.lora, scale=2.0),
        lambda e: costs.lora(rows, inner, out, rank, e),
        lambda t: plain.peft_linear(t, rank, 2.0 * rank, use_dora=False),
    )


def dora_linear(rows: int, inner: int, out: int, rank: int) -> Case:
    """One DoRA layer, the row sums of W^2 known, the norm made once a call."""

    def tensors(dtype: torch.dtype, device: torch.device) -> Tensors:
        made = _layer(rows, inner, out, dtype, device) | _factors(inner, out, rank, dtype, device)
        sums = made["weight"].double().square().sum(1)
        return made | {
            "magnitude": sums.sqrt().float().mul_(1.01).requires_grad_(),
            "weight_sq": sums.float(),
        }

    def written(weight_sq: Tensor, **given: Tensor) -> Tensor:
        return plain.dora(**given, scale=2.0)

    return Case(
        "dora_linear",
        f"{rows} x {inner} to {out}, rank {rank}",
        tensors,
        _scaled,
        written,
        lambda e: costs.dora(rows, inner, out, rank, e),
        lambda t: plain.peft_linear(t, rank, 2.0 * rank, use_dora=True),
    )


def snell_linear(rows: int, inner: int, out: int, rank: int, sparsity: float | None = 0.9) -> Case:
    """One SNELL layer: two groups of rank / 2 coordinates, and a share of the map zero.

    Without a share it is one near 0.9 at which no rounding can decide: a map that is cut off there jumps.
    """
    draw = torch.Generator().manual_seed(1)
    factors = [torch.randn(2, size, rank // 2, generator=draw) for size in (inner, out)]
    share = _clear_share(*factors) if sparsity is None else sparsity

    def tensors(dtype: torch.dtype, device: torch.device) -> Tensors:
        a, b = (factor.to(device, copy=True).requires_grad_() for factor in factors)
        return _layer(rows, inner, out, dtype, device) | {"a": a, "b": b}

    def bound(op: Call) -> Call:
        def called(x: Tensor, weight: Tensor, bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
            return op(x, weight, bias, [ops.SnellPart(0, out, a, b, share)])

        return called

    return Case(
        "snell_linear",
        f"{rows} x {inner} to {out}, rank {rank}",
        tensors,
        bound,
        partial(plain.snell, scale=0.1, rate=0.9),
        lambda e: costs.snell(rows, inner, out, 2, rank // 2, e),
    )


def _clear_share(a: Tensor, b: Tensor) -> float:
    """The share of entries below the widest gap among the sizes near the ninth tenth, to the middle of the gap."""
    a, b = a.double(), b.double()
    sizes = (torch.cdist(b[0], a[0]) - torch.cdist(b[1], a[1])).abs().flatten().sort().values
    low = int(0.88 * len(sizes))
    near = sizes[low : int(0.92 * len(sizes)) + 2]
    return (low + int((near[1:] - near[:-1]).argmax()) + 0.5) / (len(sizes) - 1)


def grouped_lora(rows: int, inner: int, out: int, rank: int, groups: int) -> Case:
    """A batch whose rows go through several adapters, in random order."""
    ids = torch.randint(groups, (rows,), generator=torch.Generator().manual_seed(0))

    @cache
    def where(device: torch.device) -> Any:
        return ops.group_rows(ids.to(device), groups)

    def tensors(dtype: torch.dtype, device: torch.device) -> Tensors:
        made = _layer(rows, inner, out, dtype, device)
        for index in range(groups):
            one = _factors(inner, out, rank, dtype, device)
            at = (ids == index).nonzero().flatten().to(device)
            made |= {f"a{index}": one["a"], f"b{index}": one["b"], f"rows{index}": at}
        return made

    def bound(op: Call) -> Call:
        def called(x: Tensor, weight: Tensor, bias: Tensor, **others: Tensor) -> Tensor:
            parts = [(i, 0, out, others[f"a{i}"], others[f"b{i}"], 2.0) for i in range(groups)]
            return op(x, weight, bias, where(x.device), parts)

        return called

    def written(x: Tensor, weight: Tensor, bias: Tensor, **others: Tensor) -> Tensor:
        parts = [(others[f"rows{i}"], others[f"a{i}"], others[f"b{i}"]) for i in range(groups)]
        return plain.grouped(x, weight, bias, parts, 2.0)

    return Case(
        "grouped_lora",
        f"{rows} x {inner} to {out}, rank {rank}, {groups} adapters",
        tensors,
        bound,
        written,
        lambda e: costs.grouped(rows, inner, out, rank, groups, e),
    )


def bottleneck(rows: int, width: int, hidden: int) -> Case:
    """One adapter after a block, its residual being its input."""

    def tensors(dtype: torch.dtype, device: torch.device) -> Tensors:
        make = partial(_random, dtype=dtype, device=device)
        return {
            "h": make(rows, width).requires_grad_(),
            "down": make(hidden, width, scale=width**-0.5).requires_grad_(),
            "up": make(width, hidden, scale=hidden**-0.5).requires_grad_(),
            "down_bias": make(hidden).requires_grad_(),
            "up_bias": make(width).requires_grad_(),
        }

    def bound(op: Call) -> Call:
        return lambda h, **given: op(h, residual=h, scale=0.5, **given)

    return Case(
        "bottleneck",
        f"{rows} x {width}, {hidden} hidden",
        tensors,
        bound,
        partial(plain.bottleneck, scale=0.5),
        lambda e: costs.bottleneck(rows, width, hidden, e),
    )


OPS: dict[str, Callable[..., Case]] = {
    "lora_linear": lora_linear,
    "dora_linear": dora_linear,
    "snell_linear": snell_linear,
    "grouped_lora": grouped_lora,
    "bottleneck": bottleneck,
}

#: ViT-B at batch 64 (rows = 64 x 197), and layers as wide as those of models of 8 and 70 billion parameters
_LARGE: dict[str, tuple[tuple[int, ...], ...]] = {
    "lora_linear": (
        (12608, 768, 768, 16),
        (12608, 768, 3072, 16),
        (4096, 4096, 4096, 16),
        (4096, 4096, 4096, 384),
    ),
    "dora_linear": ((12608, 768, 3072, 16), (4096, 4096, 4096, 16), (4096, 8192, 8192, 384)),
    "snell_linear": ((1576, 768, 2304, 8), (12608, 768, 3072, 8), (4096, 4096, 4096, 8)),
    "grouped_lora": ((12608, 768, 2304, 16, 8), (4096, 4096, 4096, 16, 8), (64, 4096, 4096, 16, 64)),
    "bottleneck": ((12608, 768, 64), (12608, 1280, 64), (4096, 4096, 256)),
}
#: ViT-B and ViT-S at batch 2
_SMALL: dict[str, tuple[tuple[int, ...], ...]] = {
    "lora_linear": ((394, 768, 768, 16), (394, 768, 3072, 16), (394, 3072, 768, 8)),
    "dora_linear": ((394, 768, 768, 16), (394, 768, 3072, 16)),
    "snell_linear": ((394, 384, 384, 8), (394, 768, 768, 8)),
    "grouped_lora": ((394, 768, 768, 16, 4), (16, 768, 768, 16, 8)),
    "bottleneck": ((394, 768, 64), (1576, 384, 32)),
}
#: odd ones, one row among them
_ODD: dict[str, tuple[tuple[int, ...], ...]] = {
    "lora_linear": ((1, 64, 48, 1), (63, 100, 257, 5), (257, 768, 384, 16), (300, 512, 640, 384)),
    "dora_linear": ((1, 64, 48, 1), (63, 100, 257, 5), (257, 768, 384, 16), (300, 512, 640, 384)),
    "snell_linear": ((1, 64, 48, 2), (63, 100, 257, 6), (257, 384, 512, 8)),
    "grouped_lora": ((1, 64, 48, 1, 3), (63, 100, 257, 5, 4), (257, 768, 384, 16, 8)),
    "bottleneck": ((1, 64, 8), (63, 100, 33), (257, 768, 64), (300, 1280, 128)),
}


def cases(op: str, device: torch.device) -> list[Case]:
    """The shapes of an operation that are timed on a device."""
    return [OPS[op](*dims) for dims in (_LARGE if device.type == "cuda" else _SMALL)[op]]


def checks(op: str) -> list[Case]:
    """The shapes at which an operation is compared with its reference in float64 first."""
    options = {"sparsity": None} if op == "snell_linear" else {}
    return [OPS[op](*dims, **options) for dims in _ODD[op]]
