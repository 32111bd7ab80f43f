"""The way from a kernel to an operation, on the smallest kernel there is."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from peftx_kernels.raw_op import _first, raw_op


@triton.jit
def _scale(x, y, n, factor, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < n) * factor, mask=at < n)


def _fake(x: Tensor, factor: float) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@raw_op("test_scale", "(Tensor x, float factor) -> Tensor", _fake)
def scale(x: Tensor, factor: float) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    if x.numel():
        _scale[(triton.cdiv(x.numel(), 64),)](x, y, x.numel(), factor, BLOCK=64)
    return y


class Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return scale(x, factor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return scale(grad, ctx.factor), None


@pytest.mark.parametrize("shape", [(1,), (7, 9), (65,), (0, 3)])
def test_eager(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, requires_grad=True)
    y = Scale.apply(x, 3.0)
    y.sum().backward()
    assert torch.equal(y, 3 * x) and x.grad is not None and torch.equal(x.grad, torch.full(shape, 3.0))


def test_torch_accepts_it() -> None:
    for x in (torch.randn(7, 9), torch.randn(9, 7).t(), torch.randn(8, 8)[2:5]):
        torch.library.opcheck(scale.registered, (x, 2.0))


def test_one_graph_twice_in_it() -> None:
    def twice(x: Tensor) -> Tensor:
        return Scale.apply(Scale.apply(x, 2.0), 3.0)

    x = torch.randn(5, 6, requires_grad=True)
    y = torch.compile(twice, fullgraph=True, backend="aot_eager")(x)
    y.sum().backward()
    assert torch.equal(y, 6 * x) and x.grad is not None and torch.equal(x.grad, torch.full((5, 6), 6.0))


def test_the_device_of_the_first_tensor_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton launches on the current device, which with several GPUs need not be that of the tensors."""
    seen: list[Tensor] = []

    def watched(t: Tensor) -> AbstractContextManager[object]:
        seen.append(t)
        return nullcontext()

    monkeypatch.setattr("peftx_kernels.raw_op.on_device", watched)
    x = torch.randn(3)
    scale(x, 2.0)
    scale.registered(x, 2.0)
    assert len(seen) == 2 and all(t is x for t in seen)
    assert _first((None, 1.0, [x], torch.zeros(1))) is x
