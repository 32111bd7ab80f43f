"""Activation checkpointing: the second computation of a block uses what the first one used."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import peftx
from peftx.errors import AdapterError


class Blocks(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            if self.reentrant is None:
                x = torch.tanh(block(x))
            else:
                x = checkpoint(lambda h, b=block: torch.tanh(b(h)), x, use_reentrant=self.reentrant)
        return x


def pair(method: str, reentrant: bool) -> tuple[peftx.Adapted, peftx.Adapted]:
    """The same adapted network with and without checkpointing, adapters `a` and `b`."""
    found = []
    for mode in (None, reentrant):
        torch.manual_seed(0)
        adapted = peftx.attach(Blocks(mode), method, name="a", targets=["blocks.*"])
        adapted.attach(method, name="b", targets=["blocks.*"])
        adapted.train_only("a", "b")
        with torch.no_grad():
            for parameter in adapted.parameters():
                parameter.add_(torch.randn_like(parameter))
        adapted.activate("a").train_only("a", "b")
        found.append(adapted)
    return found[0], found[1]


def gradients(adapted: peftx.Adapted) -> dict[str, Tensor]:
    return {key: p.grad.clone() for key, p in adapted.named_parameters() if p.grad is not None}


def same(plain: peftx.Adapted, checked: peftx.Adapted) -> None:
    expected, got = gradients(plain), gradients(checked)
    assert expected.keys() == got.keys()
    assert any(g.abs().sum() > 0 for g in expected.values())
    for key, value in expected.items():
        assert torch.allclose(value, got[key], atol=1e-5), key


@pytest.mark.parametrize("method", ["core.lora", "core.dora"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradients_equal(method: str, reentrant: bool) -> None:
    plain, checked = pair(method, reentrant)
    x = torch.randn(4, 8, requires_grad=True)
    for adapted in (plain, checked):
        adapted.model(x).square().sum().backward()
    same(plain, checked)


@pytest.mark.parametrize("method", ["core.lora", "core.dora"])
@pytest.mark.parametrize("inside", [True, False])
def test_mixed_batch(method: str, inside: bool) -> None:
    plain, checked = pair(method, False)
    x = torch.randn(4, 8)
    for adapted in (plain, checked):
        if inside:
            with adapted.per_sample(["a", "b", None, "a"]):
                adapted.model(x).square().sum().backward()
        else:
            with adapted.per_sample(["a", "b", None, "a"]):
                loss = adapted.model(x).square().sum()
            loss.backward()
    same(plain, checked)


def test_switching_between_forward_and_backward() -> None:
    plain, checked = pair("core.lora", False)
    x = torch.randn(4, 8)
    for adapted in (plain, checked):
        loss = adapted.model(x).square().sum()
        adapted._board.current = type(adapted._board.current)(names=("b",))
        loss.backward()
    same(plain, checked)


def test_backward_inside_another_block() -> None:
    plain, checked = pair("core.lora", False)
    x = torch.randn(4, 8)
    for adapted in (plain, checked):
        loss = adapted.model(x).square().sum()
        with adapted.disabled():
            with torch.no_grad():
                adapted.model(x)
            loss.backward()
    same(plain, checked)


def test_alternating_forwards_and_backwards() -> None:
    plain, checked = pair("core.lora", False)
    x = torch.randn(4, 8)
    for adapted in (plain, checked):
        for name in ("a", "b", "a"):
            adapted.activate(name).train_only("a", "b")
            adapted.model(x).square().sum().backward()
    same(plain, checked)


def test_ambiguous_recomputation_is_refused() -> None:
    _, checked = pair("core.lora", False)
    x = torch.randn(4, 8)
    first = checked.model(x).sum()
    with checked.per_sample(["b", "b", "b", "b"]):
        second = checked.model(x).sum()
    with pytest.raises(AdapterError, match="inside the same"):
        (first + second).backward()
