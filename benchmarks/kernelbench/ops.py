"""One operation: checked, then timed beside the bare product, the plain form, the compiled plain form and `peft`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import peftx_kernels
from kernelbench.cards import Card
from kernelbench.cases import Case, cases
from kernelbench.checking import check, tiers_here
from kernelbench.costs import Cost
from kernelbench.results import Row
from kernelbench.timing import Times, interleaved, sets_of, step
from peftx_kernels.table import implementation

__all__ = ["Wrong", "measure_op"]


class Wrong(RuntimeError):
    """An operation does not compute what its reference says, so its time is of no interest."""


def measure_op(op: str, device: torch.device, card: Card, repeats: int) -> Iterator[Row]:
    """Check an operation, then time it at every shape and in every type of the device.

    Raises:
        Wrong: it is not within its tolerance somewhere.
    """
    for case, tier, dtype, worst, _ in check(op, device):
        if not worst <= 1:
            raise Wrong(
                f"{op} ({tier}) at {case.label} in {_name(dtype)} is {worst:.3g} times its tolerance off"
            )
    types = (torch.bfloat16,) if device.type == "cuda" else (torch.float32,)
    for case in cases(op, device):
        for dtype in types:
            for metric in ("forward", "training"):
                yield from _case(case, dtype, metric, device, card, repeats)


def _case(
    case: Case, dtype: torch.dtype, metric: str, device: torch.device, card: Card, repeats: int
) -> Iterator[Row]:
    torch.manual_seed(0)
    first = case.tensors(dtype, device)
    count = sets_of(sum(tensor.nbytes for tensor in first.values()), card.cache)
    sets = [first, *(case.tensors(dtype, device) for _ in range(count - 1))]
    cotangent = None
    if metric == "training":
        cotangent = torch.randn_like(case.ours(**first))
    forward, backward = case.costs(dtype.itemsize)
    cost = forward + backward if metric == "training" else forward
    calls: dict[str, list[Callable[[], Any]]] = {}
    failed: dict[str, str] = {}
    for name, run in _variants(case, sets, device):
        made: list[Callable[[], Any]] = [partial(run, index, cotangent) for index in range(count)]
        try:
            made[0]()  # a compiler compiles now; what cannot run is known now
            calls[name] = made
        except Exception as error:  # one column less must not cost the others
            failed[name] = f"failed: {type(error).__name__}"
    figure = f"{_name(dtype)} {metric}"
    found = interleaved(calls, device, repeats)
    for name, times in found.items():
        over = times.over(found["composition"]) if "composition" in found else None
        yield replace(_row(case, figure, name, times, cost, card, dtype), over=over)
    for name, note in failed.items():
        yield Row(case.op, case.label, name, figure, None, "ms", note=note)
    torch.compiler.reset()


def _row(case: Case, figure: str, name: str, times: Times, cost: Cost, card: Card, dtype: torch.dtype) -> Row:
    best, bound = card.seconds(cost.flop, cost.traffic, dtype), card.bound(cost.flop, cost.traffic, dtype)
    low, high = times.spread
    return Row(
        case.op,
        case.label,
        name,
        figure,
        times.median * 1e3,
        "ms",
        len(times.seconds),
        low * 1e3,
        high * 1e3,
        best * 1e3,
        bound,
        cost.flop,
        cost.traffic,
    )


Run = Callable[[int, Tensor | None], Any]


def _variants(case: Case, sets: list[dict[str, Tensor]], device: torch.device) -> Iterator[tuple[str, Run]]:
    def plainly(run: Callable[..., Tensor]) -> Run:
        return lambda index, cotangent: step(run, sets[index], cotangent)

    if "weight" in sets[0]:
        yield "bare product", _bare(sets)
    yield "composition", plainly(case.plain)
    if device.type == "cuda":
        yield "compiled", plainly(torch.compile(case.plain, dynamic=False))
    if case.peft is not None:
        yield "peft", _layers(case, sets)
    peftx_kernels.use("auto")
    yield "ours", plainly(case.ours)
    if device.type == "cuda":
        for name in ("eager", *tiers_here(case.op)[1:]):
            peftx_kernels.use(f"auto,{case.op}={name}")
            yield f"ours, {name}", plainly(case.bound(implementation(case.op)))
        peftx_kernels.use("auto")


def _bare(sets: list[dict[str, Tensor]]) -> Run:
    """The layer without its adapter: only x has a gradient."""
    layers = [{"input": given["x"], "weight": given["weight"], "bias": given["bias"]} for given in sets]
    return lambda index, cotangent: step(F.linear, layers[index], cotangent)


def _layers(case: Case, sets: list[dict[str, Tensor]]) -> Run:
    assert case.peft is not None
    layers = [case.peft(tensors) for tensors in sets]

    def run(index: int, cotangent: Tensor | None) -> Any:
        layer, x = layers[index], sets[index]["x"]
        if cotangent is None:
            with torch.no_grad():
                return layer(x)
        wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
        return torch.autograd.grad(layer(x), wanted, cotangent)

    return run


def _name(dtype: torch.dtype) -> str:
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
