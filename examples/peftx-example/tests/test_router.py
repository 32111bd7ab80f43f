"""example.router: the equation expert by expert, and the hint of each sample."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import peftx
from peftx.errors import AdapterError, PeftxError


def attached(name="default", model=None):
    if model is None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5))
    adapted = peftx.attach(
        model, "example.router", name=name, experts=3, rank=2, targets=["0"], also_train=[], hint=2.0
    )
    with torch.no_grad():
        for parameter in adapted.parameters(name):
            parameter.normal_()
    return adapted


def by_hand(adapted, x, expert=None, name="default"):
    layer = adapted.model[0]
    delta = layer.peftx[name]["weight"]
    scores = x @ delta.gate.T
    if expert is not None:
        for sample, one in enumerate(expert.tolist()):
            if one >= 0:
                scores[sample, ..., one] += 2.0
    p = scores.softmax(-1)
    y = nn.functional.linear(x, layer._parameters["weight"], layer._parameters["bias"])
    for e in range(3):
        rows = slice(2 * e, 2 * e + 2)
        y = y + p[..., e, None] * (x @ delta.A[rows].T @ delta.B[:, rows].T)
    return y


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 6)])
def test_the_equation(shape):
    adapted, x = attached(), torch.randn(shape)
    torch.testing.assert_close(adapted.model(x), by_hand(adapted, x))
    expert = torch.tensor([2, -1, 0, 2])
    with adapted.context(expert=expert):
        torch.testing.assert_close(adapted.model(x), by_hand(adapted, x, expert))


def test_a_strong_hint_chooses_the_expert():
    adapted, x = attached(), torch.randn(2, 6)
    delta = adapted.model[0].peftx["default"]["weight"]
    delta.hint = 1000.0
    with adapted.context(expert=torch.tensor([1, 1])):
        y = adapted.model(x)
    with adapted.disabled():
        base = adapted.model(x)
    torch.testing.assert_close(y - base, x @ delta.A[2:4].T @ delta.B[:, 2:4].T)


def test_hints_are_split_with_a_mixed_batch():
    adapted, x = attached("a"), torch.randn(4, 3, 6)
    attached("b", adapted.model)
    expert = torch.tensor([2, -1, 0, 1])
    with adapted.context(expert=expert), adapted.per_sample(["b", "a", None, "b"]):
        mixed = adapted.model(x)
    with adapted.disabled():
        base = adapted.model(x)
    a, b = (by_hand(adapted, x, expert, name) for name in "ab")
    torch.testing.assert_close(mixed, torch.stack([b[0], a[1], base[2], b[3]]))


def test_the_gate_learns_with_and_without_a_hint():
    adapted, x = attached(), torch.randn(4, 6)
    for context in ({}, {"expert": torch.tensor([0, 1, 2, 0])}):
        adapted.model.zero_grad()
        with adapted.context(**context):
            adapted.model(x).square().sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in adapted.parameters())


def test_hints_for_another_number_of_samples_are_refused():
    adapted = attached()
    with adapted.context(expert=torch.tensor([0, 1, 2])), pytest.raises(AdapterError, match="3 samples"):
        adapted.model(torch.randn(4, 6))


def test_there_is_nothing_to_merge():
    adapted = attached()
    with pytest.raises(PeftxError):
        adapted.model[0].peftx["default"]["weight"].effective(torch.zeros(5, 6), None)
