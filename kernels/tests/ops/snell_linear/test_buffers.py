"""What is kept, what is in flight, and which calls are made on CPU tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from peftx_kernels import SnellPart, activation_source, snell_linear, snell_update


def a_part(
    start: int, stop: int, width: int, shape: tuple[int, int] = (2, 3), mix: bool = False
) -> SnellPart:
    a, b = ((torch.randn(shape[0], n, shape[1]) * 0.4).requires_grad_() for n in (width, stop - start))
    values = tuple(torch.tensor([v]).requires_grad_() for v in (1.3, 0.7, 0.2)) if mix else None
    return SnellPart(start, stop, a, b, 0.6, mix=values, scale=0.7)  # type: ignore[arg-type]


def factors(*parts: SnellPart) -> list[Tensor]:
    return [t for part in parts for t in (part.a, part.b, *(part.mix or ()))]


def layer(rows: tuple[int, ...], width: int, out: int) -> list[Tensor]:
    return [(torch.randn(s) * 0.5).requires_grad_() for s in ((*rows, width), (out, width), (out,))]


def test_kept_bytes(kept_bytes: Callable[..., int]) -> None:
    x, weight, bias = layer((256,), 64, 96)
    weight.requires_grad_(False)
    parts = [a_part(0, 32, 64, mix=True), a_part(32, 64, 64), a_part(64, 96, 64)]
    own = [weight, bias, *factors(*parts)]
    count = x.numel() * 4 + 3 * 4  # the input, and one threshold a map
    assert kept_bytes(lambda: snell_linear(x, weight, bias, parts), *own) == count
    assert kept_bytes(lambda: snell_linear(x, weight, bias, parts, dropout=0.1, training=True), *own) == count
    half = x.detach().bfloat16().requires_grad_()
    # another dtype costs no map either
    assert kept_bytes(lambda: snell_linear(half, weight, bias, parts), *own) == half.numel() * 2 + 12
    assert kept_bytes(lambda: snell_update(parts[0]), *own) == 4

    def recomputed() -> Tensor:
        act = F.gelu(x)
        return snell_linear(act, weight, bias, parts, source=activation_source(act))

    assert kept_bytes(recomputed, x, *own) == 12


class Peak(TorchDispatchMode):
    """Tracks the bytes of storages that live at once; those alive before it was entered do not count."""

    def __init__(self, *before: Tensor) -> None:
        super().__init__()
        self.seen: set[int] = {t.untyped_storage()._cdata for t in before}
        self.alive = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if not isinstance(t, Tensor) or t.untyped_storage()._cdata in self.seen:
                continue
            storage = t.untyped_storage()
            self.seen.add(storage._cdata)
            self.alive += storage.nbytes()
            self.most = max(self.most, self.alive)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        return out

    def _gone(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.alive -= size


@pytest.mark.parametrize("coordinates", [4, 16])
@pytest.mark.parametrize("mix", [False, True], ids=["snell", "snella"])
@pytest.mark.parametrize("shape", [(768, 3072), (3072, 768), (768, 768)], ids=str)
def test_at_most_three_copies_of_the_map_are_in_flight(
    shape: tuple[int, int], mix: bool, coordinates: int
) -> None:
    width, out = shape
    x, weight, bias = layer((2,), width, out)
    part = a_part(0, out, width, (2, coordinates), mix=mix)
    size = width * out * 4
    with Peak(x, weight, bias, *factors(part)) as forward:
        y = snell_linear(x, weight, bias, [part])
    assert forward.most < 2 * size
    assert forward.alive < size / 10  # y and a threshold
    weight.requires_grad_(False)
    y = snell_linear(x, weight, bias, [part])
    with Peak(x, weight, bias, y, *factors(part)) as backward:
        torch.autograd.grad(y.sum(), [x, *factors(part)])
    assert backward.most < 3 * size


class Calls(TorchDispatchMode):
    """Names of the products, and of the calls that write a whole map."""

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries = entries
        self.products: list[str] = []
        self.passes: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out, name = func(*args, **(kwargs or {})), func.overloadpacket.__name__
        if name in ("linear", "addmm", "addmm_", "mm"):
            self.products.append(name)
        elif (
            isinstance(out, Tensor) and out.numel() == self.entries and not (func.is_view or "empty" in name)
        ):
            self.passes.append(name)
        return out


@pytest.mark.parametrize("mix", [False, True], ids=["snell", "snella"])
def test_calls(mix: bool) -> None:
    pytest.importorskip("numpy", reason="without it the quantile is found by other calls")
    groups, coordinates = 2, 4
    x, weight, bias = layer((5,), 40, 30)
    weight.requires_grad_(False)
    part = a_part(0, 30, 40, (groups, coordinates), mix)
    with Calls(30 * 40) as forward:
        y = snell_linear(x, weight, bias, [part])
    assert forward.products in (["linear"], ["addmm"])
    # of each coordinate the difference and its square, the root, and the sum of the groups times the scale
    distances = groups * (2 * coordinates + 1) + 2
    softmax = ["div", "sub_", "exp_", "mul_", "addcmul"] if mix else []
    assert forward.passes[distances:] == [
        *softmax,
        *("abs", "abs"),  # the quantile: of a sample, of all
        *("abs", "threshold_", "addcmul"),  # K, and W + V K
    ]
    with Calls(30 * 40) as backward:
        y.backward(torch.ones_like(y))
    assert backward.products == ["mm", *["addmm_"] * 2 * groups, "mm"]  # G, the contraction, dX
    assert backward.passes[distances:] == [
        *softmax,
        *("abs", "threshold_", "mul_", "addcmul"),  # K, G K, W + V K
        *(["mul", "sub", "mul_", "addcmul_"] if mix else []),  # the softmax's Jacobian
        *["threshold_", "div"] * groups,
    ]
