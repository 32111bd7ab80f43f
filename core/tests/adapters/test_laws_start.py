"""Attaching changes neither what a model computes nor what its base is called; only what is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from peftx.testing import Subject


def test_starts_as_the_base(case: Any, method: str, keeps: Callable[..., None]) -> None:
    assert Subject(method).method.starts_as == "identity"
    keeps("starts_as", method, case)
    with torch.no_grad():
        keeps("starts_as", method, case)


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
