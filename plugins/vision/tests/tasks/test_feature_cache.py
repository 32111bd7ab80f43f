"""Linear probes on cached features, for models of many kinds; `core/tests/training/test_features.py` has the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from peftx.adapters import attach
from peftx.config.run import TrainConfig
from peftx.data import DataContext, Dataset, Split
from peftx.errors import ConfigError
from peftx.tasks import ModelSource
from peftx.training import Backend, Fit, fit, seed_all
from peftx_vision.config.tasks import ClassificationConfig
from peftx_vision.tasks.classification import Classification


class Noise(Split[Any]):
    def __init__(self, count: int) -> None:
        self.images = np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], index % 3

    @property
    def labels(self) -> list[int]:
        return [index % 3 for index in range(len(self))]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trained(name: str, mode: str, trunk: str = "eval", **options: Any) -> tuple[Fit, list[torch.Tensor]]:
    data = Dataset("vision.noise", {"train": Noise(19), "val": Noise(7)}, ("a", "b", "c"), "0" * 64)
    model = {"pretrained": False, "image_size": 32} | options.pop("model", {})
    config = ClassificationConfig(cache_features=mode, **options)
    task = Classification(config, data, ModelSource(name, model), DataContext(None, Path(), True))
    seed_all(0, "model")
    adapted = attach(task.build_model(), "core.head", trunk=trunk)
    settings = TrainConfig(epochs=2, batch_size=6, eval_batch_size=4, lr=0.1)
    done = fit(adapted, task, settings, backend=Backend("cpu"))
    return done, [value.clone() for value in adapted.tensors().values()]


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("test_vit", "head"),
        ("test_resnet", "fc"),
        ("test_convnext", "head.fc"),
    ],
)
@pytest.mark.parametrize(
    "more", [{}, {"label_smoothing": 0.1, "class_weights": "balanced", "channels_last": True}]
)
def test_a_probe_is_the_same_training(name: str, module: str, more: dict[str, Any]) -> None:
    whole, cached = trained(name, "off", **more), trained(name, "auto", **more)
    # elsewhere products may depend on their height
    if not cached[0].features["cached"]:
        pytest.skip(cached[0].features["why"])
    assert cached[0].features["exact"]
    assert cached[0].features["module"] == module
    assert whole[0].history == cached[0].history and whole[0].train_loss == cached[0].train_loss
    assert all(torch.equal(a, b) for a, b in zip(whole[1], cached[1], strict=True))


def test_a_network_whose_rows_differ_in_last_digits_is_cached_on_request() -> None:
    whole, cached = trained("test_efficientnet", "off"), trained("test_efficientnet", "on")
    assert cached[0].features["cached"] and cached[0].features["module"] == "classifier"
    for one, other in zip(whole[1], cached[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    for epoch, same in zip(whole[0].history, cached[0].history, strict=True):
        assert epoch["accuracy"] == same["accuracy"] and epoch["loss"] == pytest.approx(
            same["loss"], rel=1e-5
        )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hflip": True}, "hflip changes training images"),
        ({"crop": 2, "mixup": 0.5}, "crop and mixup change training images"),
        ({"rand_augment": "rand-m9"}, "rand_augment changes training images"),
        ({"cutmix": 1.0}, "cutmix changes training images"),
        ({"trunk": "train", "model": {"drop_path": 0.5}}, "not the same twice in training"),
    ],
)
def test_what_changes_from_epoch_to_epoch_is_not_cached(options: dict[str, Any], words: str) -> None:
    assert words in trained("test_vit", "auto", **options)[0].features["why"]
    # what the options alone tell is refused before anything is loaded
    early = "trunk" not in options
    with pytest.raises(ValidationError if early else ConfigError, match="cache_features" if early else words):
        trained("test_vit", "on", **options)


def test_drop_path_is_off_in_a_probe_and_batch_norm_holds_still() -> None:
    assert trained("test_vit", "auto", model={"drop_path": 0.5})[0].features["cached"]
    assert trained("test_resnet", "auto", trunk="frozen_stats")[0].features["cached"]
    assert "moves its statistics" in trained("test_resnet", "auto", trunk="train")[0].features["why"]
