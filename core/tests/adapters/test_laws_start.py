"""Attaching changes neither what a model computes nor what its base is called; only what is trained."""

from __future__ import annotations

from typing import Any

import torch

import peftx
from peftx.adapters import AdapterMethod
from peftx.plugins import get_registry, load_target


def _starts_as(method: str) -> str:
    target: type[AdapterMethod] = load_target(get_registry().resolve_method(method).spec.target)
    return target.starts_as


def test_starts_as_the_base(case: Any, method: str) -> None:
    model, inputs = case.build(), case.samples()
    assert _starts_as(method) == "identity"
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            before = case.call(model, *inputs)
            case.attach(model, method)
            after = case.call(model, *inputs)
        # without gradients torch may have fused the base's attention, which an adapted one cannot always be
        assert torch.allclose(after, before, rtol=0, atol=1e-6 * max(1.0, before.abs().max().item()))
        peftx.adapted(model).detach()


def test_base_keys_and_values_stay_while_attached(case: Any, method: str) -> None:
    model = case.build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    adapted = case.attach(model, method)
    after = model.state_dict()
    assert [key for key in after if ".peftx." not in f".{key}"] == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    added = [key for key in after if key not in before]
    assert added, "nothing was attached"
    assert {key for key, _ in adapted.named_parameters()} <= set(added)


def test_trains_the_adapter_and_nothing_else(case: Any, method: str) -> None:
    model = case.build()
    base = {key for key, _ in model.named_parameters()}
    adapted = case.attach(model, method)
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert trained == {key for key, _ in adapted.named_parameters()}
    assert not trained & base
    assert len(list(adapted.parameters())) == len(trained) > 0
