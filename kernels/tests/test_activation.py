from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from peftx_kernels import activation_source

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu tanh": lambda h: F.gelu(h, approximate="tanh"),
    "silu": F.silu,
    "gated": lambda h: F.silu(h) * (h + 1),
    "quick gelu": lambda h: h * torch.sigmoid(1.702 * h),
}


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputed_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    x = ACTIVATIONS[name](leaf(3, 5).to(dtype) * 2)
    source = activation_source(x)
    assert source is not None
    assert torch.equal(source.recompute(), x)
    assert not source.recompute().requires_grad


def test_none_where_x_has_to_be_kept() -> None:
    assert activation_source(leaf(3)) is None
    assert activation_source(F.relu(leaf(3))) is None
    assert activation_source(leaf(3) * 2.0) is None
    assert activation_source(leaf(3) * torch.ones(3)) is None
    assert activation_source(F.gelu(torch.ones(3))) is None
    with torch.no_grad():
        assert activation_source(F.gelu(leaf(3))) is None
    changed = F.gelu(leaf(3))
    with torch.no_grad():
        changed.mul_(2)
    assert activation_source(changed) is None


def test_asking_unpacks_nothing() -> None:
    unpacked: list[Tensor] = []

    def unpack(t: Tensor) -> Tensor:
        unpacked.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
        sources = [activation_source(f(leaf(4))) for f in ACTIVATIONS.values()]
    assert all(sources)
    assert not unpacked


def test_under_checkpointing() -> None:
    from peftx_kernels import lora_linear

    torch.manual_seed(0)
    h, weight, a, b = leaf(6, 4), torch.randn(3, 4), leaf(2, 4), leaf(3, 2)

    def block(h: Tensor, recompute: bool) -> Tensor:
        x = F.gelu(h * 1.5)
        source = activation_source(x) if recompute else None
        return lora_linear(x, weight, None, a, b, 1.0, source=source).sin()

    plain = torch.autograd.grad(block(h, False).sum(), (h, a, b))
    for reentrant in (False, True):
        y = checkpoint(block, h, True, use_reentrant=reentrant)
        if reentrant:
            h.grad = a.grad = b.grad = None
            y.sum().backward()
            again = (h.grad, a.grad, b.grad)
        else:
            again = torch.autograd.grad(y.sum(), (h, a, b))
        for one, two in zip(plain, again, strict=True):
            assert torch.equal(one, two)
