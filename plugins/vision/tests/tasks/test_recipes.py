"""Recipes: valid training settings, for every method core has and for unknown ones."""

from __future__ import annotations

import pytest

from peftx.config.run import TrainConfig
from peftx_vision.tasks.recipes import recipe

METHODS = [
    *("core.head", "core.bitfit", "core.lora", "core.rslora", "core.dora", "core.full"),
    *("vision.snell", "vision.snella", "vision.ssf", "vision.hydra", "vision.vpt_shallow", "vision.vpt_deep"),
    "acme.novel",
]


@pytest.mark.parametrize("model", ["vision.vit_micro", "resnet18"])
@pytest.mark.parametrize("method", METHODS)
def test_every_recipe_is_valid_and_sets_a_learning_rate(method: str, model: str) -> None:
    train = TrainConfig(**recipe(method, model))
    assert train.lr is not None and 1e-5 < train.lr < 1


def test_a_changed_recipe_does_not_change_the_next() -> None:
    recipe("core.lora", "resnet18")["lr"] = 7
    assert recipe("core.lora", "resnet18")["lr"] < 1


def test_an_unknown_method_gets_loras() -> None:
    assert recipe("acme.novel", "resnet18") == recipe("core.lora", "resnet18")
