"""example.vera: the equation, and a bank that a file does not hold, or holds once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import peftx


def attached(**options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 8))
    adapted = peftx.attach(
        model, "example.vera", **{"rank": 3, "targets": ["glob:*"], "also_train": []} | options
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.normal_()
    return adapted


def test_the_equation():
    adapted = attached()
    bank, x = adapted.model.peftx_bank["default"], torch.randn(4, 6)
    assert bank.A.shape == (3, 6) and bank.B.shape == (8, 3)
    expected = x
    for index in (0, 2):
        layer = adapted.model[index]
        out, width = layer._parameters["weight"].shape
        delta = layer.peftx["default"]["weight"]
        dense = torch.diag(delta.b) @ bank.B[:out] @ torch.diag(delta.d) @ bank.A[:, :width]
        expected = nn.functional.linear(expected, layer._parameters["weight"] + dense, layer.bias)
        expected = expected.tanh() if index == 0 else expected
    torch.testing.assert_close(adapted.model(x), expected)


def test_a_frozen_bank_comes_from_its_seed_and_is_in_no_file(tmp_path):
    adapted, x = attached(seed=7), torch.randn(4, 6)
    assert {slot for _, slot in adapted.tensors()} == {"b", "d"}
    assert adapted.counts().trainable == 2 * 3 + 5 + 8
    folder = peftx.artifacts.save(adapted, tmp_path / "adapter")
    torch.manual_seed(1)  # what the global generator does may not matter
    other = attached(seed=8)
    wrong = other.model.peftx_bank["default"].A
    fresh = other.detach()
    loaded = peftx.artifacts.load(fresh, folder)
    assert torch.equal(fresh(x), adapted.model(x))
    assert not torch.equal(loaded.model.peftx_bank["default"].A, wrong)


def test_a_trained_bank_is_counted_and_stored_once(tmp_path):
    adapted, x = attached(train_bank=True), torch.randn(4, 6)
    shared = 3 * (6 + 8)
    assert adapted.counts().trainable == 2 * 3 + 5 + 8 + shared
    assert [place for place in adapted.tensors() if place[1] in "AB"] == [("@bank", "A"), ("@bank", "B")]
    optimizer = torch.optim.SGD(adapted.parameters(), lr=0.1)
    before = adapted.model.peftx_bank["default"].A.clone()
    adapted.model(x).square().sum().backward()
    optimizer.step()
    assert not torch.equal(adapted.model.peftx_bank["default"].A, before)
    folder = peftx.artifacts.save(adapted, tmp_path / "adapter")
    loaded = peftx.artifacts.load(attached().detach(), folder)
    assert torch.equal(loaded.model(x), adapted.model(x))


@pytest.mark.parametrize("train_bank", [False, True])
def test_explain_promises_what_attaching_gives(train_bank):
    adapted = attached(train_bank=train_bank)
    counts = adapted.counts()
    explained = peftx.explain(
        adapted.detach(), "example.vera", rank=3, targets=["glob:*"], also_train=[], train_bank=train_bank
    )
    assert explained.counts == counts
