"""Options of training that change images, labels, the loss or the memory format; the frame of `test_classification`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import log_softmax

from peftx.config.run import RunConfig
from peftx.data import DataContext, Dataset, Split
from peftx.errors import ConfigError
from peftx.plugins import get_registry
from peftx.runs import execute
from peftx.tasks import ModelSource
from peftx.training import seed_all
from peftx_vision.config.tasks import ClassificationConfig
from peftx_vision.tasks.classification import Classification

NET = ModelSource("test_resnet", {"pretrained": False, "image_size": 32})
ALL = {
    "rand_augment": "rand-m9-mstd0.5",
    "mixup": 0.8,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "class_weights": "balanced",
    "channels_last": True,
}


class Squares(Split[Any]):
    """Squares of three shades, the first as often as the two others together."""

    labels = [0, 1, 0, 2] * 3

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return np.full((16, 16, 3), 40 + 80 * self.labels[index], np.uint8), self.labels[index]


def task(**options: Any) -> Classification:
    data = Dataset("vision.squares", {"train": Squares(), "val": Squares()}, ("a", "b", "c"), "0" * 64)
    ctx = DataContext(root=None, cache=Path(), offline=True)
    return Classification(ClassificationConfig(**options), data, NET, ctx)


def one(squares: Classification, **options: Any) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return next(iter(squares.batches("train", 6, generator=generator, **options)))


def test_the_loss_is_its_formula() -> None:
    squares = task(label_smoothing=0.2, class_weights="balanced", mixup=0.5)
    seed_all(0, "model")
    model = squares.build_model().eval()
    weights = torch.tensor([12 / (3 * 6), 12 / (3 * 3), 12 / (3 * 3)])
    for batch in (one(squares), one(squares, train=True)):
        with torch.no_grad():
            logs = log_softmax(squares.forward(model, batch), 1)
            loss = squares.loss(model, batch)
        labels = batch["labels"]
        targets = torch.eye(3)[labels] if labels.dim() == 1 else labels
        terms = -(weights * (0.8 * targets + 0.2 / 3) * logs).sum()
        torch.testing.assert_close(loss, terms / len(labels))


def test_evaluation_sees_images_and_labels_as_they_are() -> None:
    plain, options = one(task()), one(task(**ALL))
    assert torch.equal(plain["images"], options["images"])
    assert torch.equal(plain["labels"], options["labels"])


def test_training_batches_hold_probabilities_and_new_images() -> None:
    plain, first, again = one(task(), train=True), one(task(**ALL), train=True), one(task(**ALL), train=True)
    assert first["labels"].shape == (6, 3) and first["labels"].dtype == torch.float32
    assert not torch.equal(plain["images"], first["images"])
    assert torch.equal(first["images"], again["images"]) and torch.equal(first["labels"], again["labels"])
    assert first["images"].is_contiguous(memory_format=torch.channels_last)


def test_channels_last_is_the_same_function() -> None:
    outputs = []
    for last in (False, True):
        squares = task(channels_last=last)
        seed_all(0, "model")
        model = squares.build_model().eval()
        assert model.conv1[0].weight.is_contiguous(memory_format=torch.channels_last) or not last
        with torch.no_grad():
            outputs.append(squares.forward(model, one(squares)))
    torch.testing.assert_close(*outputs)


def test_drop_path_is_in_the_model_or_refused() -> None:
    def build(name: str) -> torch.nn.Module:
        squares = task()
        squares.model = ModelSource(name, {"pretrained": False, "image_size": 32, "drop_path": 0.3})
        return squares.build_model()

    rates = [module.drop_prob for module in build("test_vit").modules() if hasattr(module, "drop_prob")]
    assert max(rates) == pytest.approx(0.3)
    with pytest.raises(Exception, match="drop_path_rate") as caught:
        build("vgg11")
    assert "\n" not in str(caught.value)


def test_rand_augment_of_gray_images_is_refused() -> None:
    squares = task(rand_augment="rand-m9")
    squares.model = ModelSource("test_vit", {"pretrained": False, "image_size": 32, "in_chans": 1})
    with pytest.raises(ConfigError, match="rand_augment"):
        squares.batches("train", 4, train=True)


def test_a_run_with_all_of_them_is_the_same_twice(tmp_path: Path) -> None:
    registry = get_registry()
    if "vision" not in registry.domains:
        pytest.skip("peftx-vision is not installed as a distribution")
    settings: dict[str, Any] = {
        "task": {"name": "vision", **ALL},
        "data": {"name": "digits", "limit_train": 40},
        "method": {"name": "core.lora", "rank": 2},
        "train": {"epochs": 2, "batch_size": 9, "lr": 3e-3},
        "baselines": [],
        "efficiency": False,
        "device": "cpu",
    }
    lines = []
    for name in ("one", "two"):
        config = RunConfig.model_validate(settings | {"out": tmp_path / name})
        result = execute(config, registry)
        assert result.rows[0]["metrics"]["val"]["accuracy"] > 0
        found = (tmp_path / name / "adapter" / "adapter.safetensors").read_bytes()
        lines.append(found)
    assert lines[0] == lines[1]
