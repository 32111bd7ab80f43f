"""Running statistics: an adapter whose trunk trains owns them; the base's never move."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx import artifacts


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with torch.no_grad():
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.5, 2)
    return model


def statistics(model: nn.Module) -> list[Tensor]:
    norm = model[1]
    return [norm._buffers[name].clone() for name in ("running_mean", "running_var", "num_batches_tracked")]


def test_full_tuning_moves_its_own_statistics_and_not_the_base() -> None:
    model, plain = net(), net()
    before = statistics(model)
    adapted = peftx.attach(model, "core.full")
    x = torch.randn(8, 3, 6, 6)
    model.train()
    plain.train()
    for _ in range(3):
        assert torch.equal(model(x), plain(x))
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), before, strict=True))
    assert torch.equal(model[1].running_mean, plain[1].running_mean)
    assert int(model[1].num_batches_tracked) == int(plain[1].num_batches_tracked) == 3
    model.eval()
    plain.eval()
    assert torch.equal(model(x), plain(x))
    with adapted.disabled():
        assert torch.equal(model(x), net().eval()(x))
    adapted.detach()
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), before, strict=True))


def test_forwards_of_the_base_in_training_mode_do_not_move_it() -> None:
    model = net()
    before = statistics(model)
    adapted = peftx.attach(model, "core.full").model.train() and peftx.adapted(model)
    own = model[1].running_mean.clone()
    with adapted.disabled():
        model(torch.randn(4, 3, 6, 6))
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), before, strict=True))
    assert torch.equal(model[1].running_mean, own)


def test_statistics_are_saved_counted_apart_and_copied(tmp_path: Path) -> None:
    model = net()
    adapted = peftx.attach(model, "core.full")
    model.train()
    x = torch.randn(8, 3, 6, 6)
    for _ in range(2):
        model(x)
    twin = copy.deepcopy(model)
    model.eval()
    y = model(x)
    assert adapted.counts().trainable == sum(p.numel() for p in net().parameters())
    assert sum(row.trained for row in adapted.explain().rows) == adapted.counts().trainable
    assert peftx.explain(net(), "core.full").counts.trainable == adapted.counts().trainable
    assert adapted.reached(lambda: model(x)) == ()
    artifacts.save(adapted, tmp_path)
    fresh = net()
    artifacts.load(fresh, tmp_path)
    assert torch.equal(fresh.eval()(x), y)
    twin.train()
    twin(x)
    assert int(twin[1].num_batches_tracked) == 3 and int(model[1].num_batches_tracked) == 2


@pytest.mark.parametrize("method", ["core.lora", "core.bitfit"])
def test_a_frozen_trunk_beside_a_training_one(method: str) -> None:
    """Activating decides: a method that keeps statistics frozen never moves the base's."""
    model = net()
    before = statistics(model)
    options = {"targets": ["glob:*"]} if method == "core.lora" else {}
    adapted = peftx.attach(model, "core.full", name="full")
    adapted.attach(method, name="small", **options)
    model.train()
    assert not model[1].training
    model(torch.randn(4, 3, 6, 6))
    adapted.activate("full")
    assert model[1].training
    model(torch.randn(4, 3, 6, 6))
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), before, strict=True))
    assert not torch.equal(model[1].running_mean, before[0])
