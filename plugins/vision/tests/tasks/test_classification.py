"""The task: its model, batches, checks, and a whole run of the pack from configuration to prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from peftx.config.run import RunConfig
from peftx.data import DataContext, Dataset, Split
from peftx.errors import DataError, ModelError
from peftx.plugins import get_registry
from peftx.runs import evaluate, execute, predict
from peftx.tasks import ModelSource
from peftx.training import seed_all
from peftx_vision.config.tasks import ClassificationConfig, VitMicroConfig
from peftx_vision.models.registered import vit_micro
from peftx_vision.tasks.classification import Classification

RANDOM = VitMicroConfig(pretrained=False)
NET = ModelSource("vision.vit_micro", {"pretrained": False}, lambda outputs: vit_micro(RANDOM, outputs))


class Images(Split[Any]):
    """Bright and dark squares."""

    def __init__(self, count: int, classes: int = 2, size: int = 8) -> None:
        self.count, self.classes, self.size = count, classes, size

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        label = index % self.classes
        return np.full((self.size, self.size, 3), 40 + 150 * label // self.classes, np.uint8), label

    @property
    def labels(self) -> list[int]:
        return [index % self.classes for index in range(self.count)]


def dataset(train: Split[Any], names: tuple[str, ...] = ("dark", "bright"), val: int = 4) -> Dataset:
    return Dataset("vision.squares", {"train": train, "val": Images(val)}, names, "0" * 64)


def task(data: Dataset, model: ModelSource = NET, **options: Any) -> Classification:
    ctx = DataContext(root=None, cache=Path(), offline=True)
    return Classification(ClassificationConfig(**options), data, model, ctx)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_model_has_a_head_for_the_data_and_is_the_same_for_the_same_seed() -> None:
    squares = task(dataset(Images(6)))
    models = []
    for _ in range(2):
        seed_all(3, "model")
        models.append(squares.build_model())
    assert models[0].head.out_features == 2
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert squares.model_card()["input_size"] == [3, 32, 32]
    assert squares.notes == ["vit_micro starts at random: no pretrained weights"]


def test_batches_loss_and_logits_fit_together() -> None:
    squares = task(dataset(Images(6)))
    model = squares.build_model().eval()
    batch = next(iter(squares.batches("train", 4)))
    assert batch["images"].shape == (4, 3, 32, 32) and batch["images"].dtype == torch.float32
    assert batch["labels"].tolist() == [0, 1, 0, 1]
    with torch.no_grad():
        logits = squares.forward(model, batch)
        loss = squares.loss(model, batch)
    assert logits.shape == (4, 2)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, batch["labels"]))


def test_a_record_states_the_input_and_the_augmentation() -> None:
    assert task(dataset(Images(6)), hflip=True, crop=2, normalise="imagenet").input_card() == {
        "size": "3 x 32 x 32",
        "resize": "squash",
        "interpolation": "bilinear",
        "small images": "refuse",
        "normalisation": "imagenet",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "augmentation": "hflip, crop 2",
    }


def test_augmentation_is_for_training_only() -> None:
    plain = task(dataset(Images(6)), hflip=True, crop=4)
    first, second = (next(iter(plain.batches("val", 4)))["images"] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            dataset(Images(6, classes=1), names=("cat",)),
            r"has 1 class \('cat'\): classification needs at least two",
        ),
        (dataset(Images(6, classes=1)), r"all training images .* are of one class \('dark'\)"),
        (dataset(Images(0)), "the train split of vision.squares is empty"),
        (dataset(Images(4), val=0), "the val split of vision.squares is empty"),
        (dataset(Images(4, size=3)), "image 0 of the train split is 3x3 pixels, smaller than one 4x4 patch"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_training(data: Dataset, words: str) -> None:
    squares = task(data)
    with pytest.raises(DataError, match=words) as caught:
        squares.prepare(squares.splits())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cache", [0, 512])
def test_memory_limit_decides_but_does_not_change_the_numbers(cache: int) -> None:
    squares = task(dataset(Images(6)), cache_mib=cache)
    squares.prepare(["train"])
    assert (squares._prepared("train")._pixels is None) == (cache == 0)
    assert torch.equal(
        next(iter(squares.batches("train", 6)))["images"],
        next(iter(task(dataset(Images(6))).batches("train", 6)))["images"],
    )


def test_an_unknown_timm_name_gives_near_matches() -> None:
    with pytest.raises(ModelError, match="Did you mean resnet18"):
        task(dataset(Images(6)), ModelSource("resnet81", {"pretrained": False})).prepare(["train"])


def test_any_timm_model_runs_on_its_own_input() -> None:
    source = ModelSource("test_resnet", {"pretrained": False, "image_size": 48})
    squares = task(dataset(Images(6)), source)
    model = squares.build_model().eval()
    batch = next(iter(squares.batches("train", 2)))
    assert batch["images"].shape == (2, 3, 48, 48)
    assert squares.forward(model, batch).shape == (2, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty pictures in two classes: bright on the left, bright on the right."""
    draw = np.random.default_rng(0)
    for name in ("left", "right"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(20):
            pixels = draw.integers(0, 60, (20, 24, 3), np.uint8)
            pixels[:, :12] += np.uint8(150 if name == "left" else 0)
            pixels[:, 12:] += np.uint8(150 if name == "right" else 0)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{index}.png")
    return tmp_path / "pictures"


def config(folder: Path, out: Path, **values: Any) -> RunConfig:
    settings = {
        "task": "vision",
        "data": f"imagefolder:{folder}",
        "model": {"name": "vit_micro", "pretrained": False},
        "method": {"name": "core.lora", "rank": 2},
        "train": {"epochs": 3, "batch_size": 8, "lr": 3e-3},
        "baselines": [],
        "device": "cpu",
        "out": out,
    }
    return RunConfig.model_validate(settings | values)


def test_a_folder_of_pictures_from_configuration_to_prediction(folder: Path, tmp_path: Path) -> None:
    registry = get_registry()
    if "vision" not in registry.domains:
        pytest.skip("peftx-vision is not installed as a distribution")
    result = execute(config(folder, tmp_path / "run"), registry)
    row = result.rows[0]
    assert row["metrics"]["test"]["accuracy"] == 100.0
    assert "vit_micro starts at random: no pretrained weights" in result.notes
    assert result.record["model"]["input_size"] == [3, 32, 32]
    assert result.record["input"]["normalisation"] == "half, the model's own"
    assert "normalisation" in (result.folder / "report.html").read_text()

    again = evaluate(result.folder, registry)
    assert again.exact, again.summary()

    found = predict(
        result.folder, [folder / "left" / "0.png", folder / "right" / "3.png"], top=9, registry=registry
    )
    assert [answer["class"] for answer in found] == ["left", "right"]
    assert [len(answer["top"]) for answer in found] == [2, 2]
    assert sum(guess["probability"] for guess in found[0]["top"]) == pytest.approx(1.0, abs=1e-5)
    assert found[0]["top"][0]["probability"] >= found[0]["top"][1]["probability"]

    every = predict(result.folder, [folder], top=1, registry=registry)
    assert [answer["path"] for answer in every] == sorted(str(path) for path in folder.rglob("*.png"))
    assert all(Path(answer["path"]).parent.name == answer["class"] for answer in every)

    damaged, tiny = tmp_path / "damaged.png", tmp_path / "tiny.png"
    damaged.write_bytes((folder / "left" / "0.png").read_bytes()[:200])
    Image.new("RGB", (1, 1)).save(tiny)
    for path, words in ((damaged, r"damaged\.png"), (tiny, r"tiny\.png is 1x1 pixels")):
        with pytest.raises(DataError, match=words) as caught:
            predict(result.folder, [folder / "left" / "0.png", path], registry=registry)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("corrupt", r"left[/\\]3\.png"),
        ("tiny", r"left[/\\]3\.png is 2x2 pixels"),
        ("one class", "class"),
        ("empty", "pictures"),
    ],
)
def test_bad_folders_are_refused_in_one_sentence(
    folder: Path, tmp_path: Path, change: str, words: str
) -> None:
    registry = get_registry()
    if "vision" not in registry.domains:
        pytest.skip("peftx-vision is not installed as a distribution")
    if change == "corrupt":
        path = folder / "left" / "3.png"
        path.write_bytes(path.read_bytes()[:100])
    elif change == "tiny":
        Image.new("RGB", (2, 2)).save(folder / "left" / "3.png")
    else:
        for name in ("right", "left")[: 1 if change == "one class" else 2]:
            for path in (folder / name).iterdir():
                path.unlink()
            (folder / name).rmdir()
    with pytest.raises(DataError, match=words) as caught:
        execute(config(folder, tmp_path / "run"), registry)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
