"""The cheap identity of a base: the same for the same model, another for any other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import peftx
from peftx.artifacts import fingerprint


def test_is_the_models_not_the_adapters(build: Callable[..., nn.Module], perturb: Any) -> None:
    model = build()
    before = fingerprint(model)
    assert fingerprint(build()) == before
    for method in ("core.full", "core.lora", "core.bitfit"):
        adapted = peftx.attach(model, method)
        perturb(adapted.parameters())
        assert fingerprint(model) == before
        adapted.detach()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert fingerprint(model.train()) == before


def test_names_and_shapes_are_structure(build: Callable[..., nn.Module]) -> None:
    base = fingerprint(build())
    assert fingerprint(build(classes=4)).structure != base.structure
    assert fingerprint(build(blocks=2)).structure != base.structure
    model = build()
    model.header = model.head
    assert fingerprint(model).structure != base.structure


def test_values_and_precision_are_values(build: Callable[..., nn.Module]) -> None:
    base = fingerprint(build())
    for name, parameter in build().named_parameters():
        model = build()
        with torch.no_grad():
            model.get_parameter(name).add_(1e-3)
        assert fingerprint(model).structure == base.structure
        assert fingerprint(model).values != base.values, name
        assert (fingerprint(model, skip={name}).values == fingerprint(build(), skip={name}).values) is (
            name != "table.weight"  # tied: its second name still shows it
        ), name
        assert parameter.shape == model.get_parameter(name).shape
    assert fingerprint(build().double()).values != base.values


def test_running_statistics_are_no_identity(build: Callable[..., nn.Module]) -> None:
    base, model = fingerprint(build()), build()
    model.norm.running_mean.add_(1)
    model.norm.num_batches_tracked.add_(1)
    assert fingerprint(model) == base


class Extra(nn.Linear):
    def get_extra_state(self) -> Any:
        return {"steps": 3}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"steps": 3}


@pytest.mark.parametrize("shape", [(), (0,), (1,), (17,)])
def test_odd_tensors(shape: tuple[int, ...]) -> None:
    model = nn.ParameterDict({"x": nn.Parameter(torch.zeros(shape))})
    other = nn.ParameterDict({"x": nn.Parameter(torch.ones(shape))})
    assert fingerprint(model).structure == fingerprint(other).structure
    assert (fingerprint(model).values == fingerprint(other).values) is (shape == (0,))


def test_extra_state_is_left_alone() -> None:
    assert fingerprint(Extra(2, 2)).structure
