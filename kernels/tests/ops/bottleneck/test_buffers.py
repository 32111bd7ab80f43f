"""What is kept for the backward pass, and which calls are made on CPU tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from peftx_kernels import bottleneck


def tensors(rows: int, width: int, units: int, *, norm: bool) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "h": (rows, width),
        "residual": (rows, width),
        "down": (units, width),
        "up": (width, units),
        "down_bias": (units,),
        "up_bias": (width,),
    }
    if norm:
        shapes |= {"norm_weight": (width,), "norm_bias": (width,)}
    return {name: torch.randn(shape).requires_grad_() for name, shape in shapes.items()}


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_kept_bytes(kept_bytes: Callable[..., int], norm: bool, rate: float) -> None:
    rows, width, units = 1024, 512, 32
    given = tensors(rows, width, units, norm=norm)

    def run() -> Tensor:
        h = given["h"] * 2.0
        return bottleneck(**given | {"h": h}, norm_eps=1e-6 if norm else None, dropout=rate, training=True)

    assert kept_bytes(run, *given.values()) == rows * width * 4 + rows * units * 4


VIEWS = frozenset({"view", "t", "_unsafe_view", "transpose", "slice", "expand", "alias", "detach"})
ADDED = frozenset(
    {"ones_like", "clone", "new_empty_strided", "copy_"}
)  # autograd's own bookkeeping of leaves


class Calls(TorchDispatchMode):
    """Calls that do work, and those of them that make or change a tensor of so many entries."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries = entries
        self.all: list[str] = []
        self.wide: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        made = [t for t in (result if isinstance(result, tuple) else (result,)) if isinstance(t, Tensor)]
        if made and name not in VIEWS | ADDED:
            self.all.append(name)
            if any(t.numel() == self.entries for t in made):
                self.wide.append(name)
        return result


def counted(given: dict[str, Tensor], **options: Any) -> tuple[Calls, Calls]:
    """The calls of one pass each way, with h as the residual where none is given."""
    rest = {name: t for name, t in given.items() if name != "h"}
    with Calls(given["h"].numel()) as forward:
        o = bottleneck(given["h"], **{"residual": given["h"], **rest}, **options)
    cotangent = torch.ones_like(o)
    with Calls(given["h"].numel()) as backward:
        torch.autograd.grad(o, list(given.values()), cotangent)
    return forward, backward


def test_calls_with_a_residual_of_its_own() -> None:
    forward, backward = counted(tensors(64, 48, 16, norm=False), scale=0.1)
    assert forward.all == ["addmm", "gelu", "new_empty", "add", "addmm_"]
    assert forward.wide == ["new_empty", "add", "addmm_"]
    assert sorted(backward.all) == sorted(
        # V; dWu and dbu; E and dU; dWd and dbd; dH
        ["gelu", "mm", "mul_", "sum", "mul", "mm", "mul_", "gelu_backward", "mm", "sum", "mm"]
    )
    assert backward.wide == ["mm"]  # dH; the gradient of r is the cotangent


def test_calls_in_sequence() -> None:
    given = tensors(64, 48, 16, norm=False)
    for name in ("residual", "down_bias", "up_bias"):
        del given[name]
    forward, backward = counted(given, scale=0.1)
    assert forward.all == ["mm", "gelu", "new_empty", "addmm"]
    assert backward.wide == ["addmm"]  # the residual's gradient is what the product is added to
    assert sorted(backward.all) == sorted(
        ["gelu", "mm", "mul_", "mm", "mul_", "gelu_backward", "mm", "addmm"]
    )


def test_passes_of_a_norm() -> None:
    forward, backward = counted(tensors(64, 48, 16, norm=True), scale=0.1, norm_eps=1e-6)
    assert forward.wide == ["native_layer_norm", "new_empty", "add", "addmm_"]
    assert backward.wide == ["native_layer_norm", "mm", "native_layer_norm_backward"]
