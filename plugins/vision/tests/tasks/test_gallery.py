"""What a run keeps of single images: the surest mistakes with maps, bounded, without a trace, and only where wanted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from peftx.adapters import attach
from peftx.config.run import RunConfig
from peftx.data import DataContext, Dataset, Split
from peftx.errors import DataError
from peftx.plugins import get_registry
from peftx.runs import execute
from peftx.runs.exhibits import exhibit
from peftx.tasks import ModelSource
from peftx.tasks.scoring import evaluate
from peftx.training import Backend, seed_all
from peftx.training.seeds import random_state
from peftx_vision.config.tasks import ClassificationConfig, VitMicroConfig
from peftx_vision.models.registered import vit_micro
from peftx_vision.tasks import gallery as module
from peftx_vision.tasks.classification import Classification

RANDOM = VitMicroConfig(pretrained=False)
VIT = ModelSource("vision.vit_micro", {}, lambda outputs: vit_micro(RANDOM, outputs))
TIMM = {"pretrained": False, "image_size": 64}


class Noise(Split[Any]):
    """Noise of three classes, as large as photographs of a telephone when asked for."""

    def __init__(self, count: int = 12, size: tuple[int, int] = (20, 30)) -> None:
        draw = np.random.default_rng(0)
        self.images = draw.integers(0, 256, (count, *size, 3), np.uint8)
        self.files = tuple(f"test/{index}.png" for index in range(count))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labels(self) -> list[int]:
        return [index % 3 for index in range(len(self))]

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images[index], index % 3


def task(model: ModelSource = VIT, split: Noise | None = None, **options: Any) -> Classification:
    data = Dataset("vision.noise", {"train": Noise(), "test": split or Noise()}, ("a", "b", "c"), "0" * 64)
    return Classification(ClassificationConfig(**options), data, model, DataContext(None, Path(), True))


def shown(task: Classification, method: str | None = None, **options: Any) -> tuple[Any, dict[str, Any]]:
    seed_all(0, "model")
    model = task.build_model()
    if method:
        attach(model, method, **options)
    scores = {"test": evaluate(task, model, "test", 8)}
    notes: list[str] = []
    found = exhibit(task, model, scores, Backend("cpu"), notes.append)
    assert not notes
    return model, found.get("test", {})


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("vit_micro", "vision.vpt_shallow"),
        ("vit_micro", "vision.snella"),
        ("test_vit", "core.lora"),
        ("test_convnext", "core.lora"),
        ("test_resnet", "core.bitfit"),
    ],
)
def test_mistakes_have_a_picture_and_some_a_map(name: str, method: str) -> None:
    model = VIT if name == "vit_micro" else ModelSource(name, TIMM)
    _, found = shown(task(model, gallery=5, saliency=3), method)
    assert json.loads(json.dumps(found, allow_nan=False)) == found and "left_out" not in found
    assert len(found["mistakes"]) == 5
    assert [one["probability"] for one in found["mistakes"]] == sorted(
        (one["probability"] for one in found["mistakes"]), reverse=True
    )
    for one in found["mistakes"] + found["hits"]:
        assert one["image"].startswith("data:image/") and one["size"] == [30, 20]
        assert one["file"] == f"test/{one['index']}.png"
        assert (one["label"] == one["predicted"]) == (one in found["hits"])
    assert sum("map" in one for one in found["mistakes"] + found["hits"]) == 3


def test_it_leaves_no_trace() -> None:
    images = task(gallery=3, saliency=2)
    seed_all(0, "model")
    model = images.build_model()
    attach(model, "core.lora")
    model.train()
    scores = evaluate(images, model, "test", 8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    random = random_state()
    found = exhibit(images, model, {"test": scores}, Backend("cpu"), pytest.fail)
    assert found["test"]["mistakes"]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(random["torch"], random_state()["torch"])
    again = exhibit(images, model, {"test": scores}, Backend("cpu"), pytest.fail)
    assert again == found, "the same pictures, so that a resumed run keeps the same file"


def test_nothing_is_kept_without_a_gallery() -> None:
    assert shown(task(gallery=0))[1] == {}
    found = shown(task(gallery=4, saliency=0))[1]
    assert len(found["mistakes"]) == 4 and not found["hits"]
    assert not any("map" in one for one in found["mistakes"])


def test_large_photographs_stay_small() -> None:
    images = task(split=Noise(48, (300, 400)), gallery=48, saliency=6)
    model, found = shown(images)
    assert len(json.dumps(found)) < 400_000
    kept, wrong = len(found["mistakes"]), len(evaluate(images, model, "test", 8).details["mistakes"])
    assert 24 <= kept <= wrong
    assert (kept < wrong) == ("too large" in found.get("left_out", ""))


def test_a_slow_model_has_no_maps_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", -1.0)
    found = shown(task(gallery=4))[1]
    assert len(found["mistakes"]) == 4 and "takes long" in found["left_out"]
    assert not any("map" in one for one in found["mistakes"] + found["hits"])


def test_what_fails_is_told_and_costs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    images = task(gallery=3)
    model = images.build_model()
    scores = {"test": evaluate(images, model, "test", 8)}
    monkeypatch.setattr(module, "encode", lambda picture: 1 / 0)
    notes: list[str] = []
    assert exhibit(images, model, scores, Backend("cpu"), notes.append) == {}
    assert len(notes) == 1 and "division by zero" in notes[0] and "\n" not in notes[0]


def test_files_are_explained_beside_their_image(tmp_path: Path) -> None:
    images = task()
    model = images.build_model().eval()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(Noise(1, (30, 40)).images[0]).save(tmp_path / name / "one.png")
    paths = [tmp_path / name / "one.png" for name in ("a", "b")]
    with torch.no_grad():
        answers = images.predict(model, paths)
        (tmp_path / "why").mkdir()
        written = images.illustrate(model, paths, answers, tmp_path / "why")
    assert [path.name for path in written] == ["one.png.png", "one.png-2.png"]
    made = Image.open(written[0])
    assert made.size == (2 * 80, 60), "a small image is enlarged"
    left = np.asarray(made)[::2, :80:2]
    assert np.array_equal(left, np.asarray(Image.open(paths[0])))
    with pytest.raises(DataError, match="cannot write"):
        images.illustrate(model, paths, answers, tmp_path / "none")


@pytest.mark.slow
def test_a_run_is_the_same_with_and_without(tmp_path: Path) -> None:
    registry = get_registry()
    if "vision" not in registry.domains:
        pytest.skip("peftx-vision is not installed as a distribution")
    settings: dict[str, Any] = {
        "data": {"name": "digits", "limit_train": 30},
        "method": {"name": "core.head"},
        "train": {"epochs": 1, "batch_size": 10},
        "baselines": [],
        "efficiency": False,
        "device": "cpu",
    }
    rows = []
    for name, gallery in (("with", 24), ("without", 0)):
        made = settings | {"task": {"name": "vision", "gallery": gallery}, "out": tmp_path / name}
        result = execute(RunConfig.model_validate(made), registry)
        rows.append([(row["metrics"], row["train_loss"], row["history"]) for row in result.rows])
    assert rows[0] == rows[1]
    adapters = [
        (tmp_path / name / "adapter/adapter.safetensors").read_bytes() for name in ("with", "without")
    ]
    assert adapters[0] == adapters[1]
    held = json.loads((tmp_path / "with" / "samples.json").read_text())
    assert list(held["rows"]) == ["core.head"] and held["rows"]["core.head"]["test"]["mistakes"]
    page = (tmp_path / "with" / "report.html").read_text("utf-8")
    assert page.count('<img src="data:image/') > 9 and "Where predictions come from" in page
    assert not (tmp_path / "without" / "samples.json").exists()
    assert "<img" not in (tmp_path / "without" / "report.html").read_text("utf-8")
