"""Detaching gives back the very model: classes, keys, values, flags, modes and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import peftx


def test_detach_restores_the_model(case: Any, method: str, keeps: Callable[..., None]) -> None:
    keeps("detach", method, case)


def test_modes_come_back(method: str, toy: Any) -> None:
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 4, 3))
    for chosen in ("frozen_stats", "eval", "train"):
        model = toy(trunk, 4, channels_first=True).train()
        trunk[2].eval()  # by hand
        before = [module.training for module in model.modules()]
        options: dict[str, Any] = {"trunk": chosen}
        if method in ("core.lora", "core.rslora", "core.dora"):
            options["targets"] = ["trunk.0"]
        adapted = peftx.attach(model, method, **options)
        assert trunk[2].training is False, "what was switched off by hand stays off"
        assert trunk[1].training is (chosen == "train")
        assert trunk[0].training is (chosen != "eval")
        adapted.detach()
        assert [module.training for module in model.modules()] == before


def test_hooks_stay(toy: Any) -> None:
    model = toy(nn.Linear(4, 4), 4)
    seen: list[str] = []
    model.trunk.register_forward_hook(lambda *_: seen.append("before"))
    adapted = peftx.attach(model, "core.lora", targets=["trunk"])
    model.trunk.register_forward_hook(lambda *_: seen.append("while"))
    model(torch.ones(2, 4))
    assert seen == ["before", "while"]
    with adapted.per_sample(["default", None]):
        model(torch.ones(2, 4))
    assert seen == ["before", "while"] * 2, "a hook sees the batch, once"
    adapted.detach()
    model(torch.ones(2, 4))
    assert seen == ["before", "while"] * 3


def test_tied_parameters_come_back_trainable() -> None:
    model = nn.ModuleDict({"a": nn.Embedding(5, 3), "b": nn.Linear(3, 5, bias=False)})
    model["b"].weight = model["a"].weight
    adapted = peftx.attach(model, "core.full")
    assert adapted.counts().trainable == 15
    adapted.detach()
    assert model["a"].weight is model["b"].weight and model["a"].weight.requires_grad


def test_gradients_of_the_base_are_left_alone(toy: Any) -> None:
    model = toy(nn.Linear(4, 4), 4)
    model(torch.ones(2, 4)).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    parameters = list(model.parameters())
    peftx.attach(model, "core.full")
    model(torch.ones(2, 4)).sum().backward()
    peftx.adapted(model).detach()
    assert all(torch.equal(p.grad, g) for p, g in zip(parameters, before, strict=True))
