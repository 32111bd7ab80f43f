"""MedMNIST: tiny files of the official form, a real one where it is at hand, and one sentence for each way to be
wrong."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peftx.data import DataContext
from peftx.data.checks import check_dataset
from peftx.errors import DataError, NetworkError
from peftx_vision.config.data import MedMnistConfig
from peftx_vision.data.medmnist import load, locate, read_file
from peftx_vision.data.medmnist_flags import FLAGS, MULTI_LABEL, VOLUMES

COUNTS = {"train": 40, "val": 6, "test": 9}


def ctx(tmp_path: Path, root: Path | None = None) -> DataContext:
    return DataContext(root, tmp_path / "cache", offline=True)


def arrays(classes: int = 2, channels: int = 1, **changes: object) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}
    for name, count in COUNTS.items():
        shape = (count, 28, 28) if channels == 1 else (count, 28, 28, channels)
        found[f"{name}_images"] = draw.integers(0, 256, shape, dtype=np.uint8)
        found[f"{name}_labels"] = (np.arange(count) % classes).astype(np.uint8)[:, None]
    return {key: value for key, value in {**found, **changes}.items() if value is not None}  # type: ignore[misc]


def put(path: Path, stored: dict[str, np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **stored)  # type: ignore[arg-type]
    return path


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """A tiny bloodmnist whose checksum and counts are the expected ones."""
    stored = arrays(classes=8, channels=3)
    path = put(tmp_path / "root" / "medmnist" / "bloodmnist.npz", stored)
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    tiny = replace(FLAGS["bloodmnist"], md5=md5, counts=tuple(COUNTS.values()))
    monkeypatch.setitem(FLAGS, "bloodmnist", tiny)
    return stored


def test_the_official_form(tmp_path: Path, official: dict[str, np.ndarray]) -> None:
    config = MedMnistConfig(flag="bloodmnist")
    data = load(config, ctx(tmp_path, tmp_path / "root"))
    assert check_dataset(data).ok and data.classes[1] == "eosinophil"
    for name, split in data.splits.items():
        assert np.array_equal(np.stack([image for image, _ in split]), official[f"{name}_images"])
        assert [label for _, label in split] == official[f"{name}_labels"].ravel().tolist()
    again = load(config, ctx(tmp_path, tmp_path / "root" / "medmnist"))
    few = load(MedMnistConfig(flag="bloodmnist", limit_train=16), ctx(tmp_path, tmp_path / "root"))
    assert again.fingerprint == data.fingerprint != few.fingerprint
    assert np.bincount(few.splits["train"].labels).tolist() == [2] * 8 and len(few.splits["val"]) == 6
    assert data.card["note"] == "bloodmnist, official splits"
    assert data.copy is not None and data.copy.kind == "official" and few.copy == data.copy


def test_an_altered_official_file_is_refused_and_read_by_the_option_file(
    tmp_path: Path, official: dict[str, np.ndarray]
) -> None:
    path = put(tmp_path / "other" / "bloodmnist.npz", official | {"more": np.zeros(1)})
    with pytest.raises(DataError, match=r"is published for bloodmnist.npz"):
        locate(MedMnistConfig(flag="bloodmnist"), ctx(tmp_path, path.parent))
    own = load(MedMnistConfig(flag="bloodmnist", file=path), ctx(tmp_path))
    assert own.published is None and len(own.splits["train"]) == 40
    assert own.copy is not None and own.copy.kind == "altered"
    few = put(
        tmp_path / "few.npz",
        official | {f"train_{k}": official[f"train_{k}"][:8] for k in ("images", "labels")},
    )
    part = load(MedMnistConfig(flag="bloodmnist", file=few), ctx(tmp_path))
    assert part.copy is not None and part.copy.detail == "8 of 40 samples in train"
    same = tmp_path / "root" / "medmnist" / "bloodmnist.npz"
    whole = load(MedMnistConfig(flag="bloodmnist", file=same), ctx(tmp_path))
    assert whole.copy is not None and whole.copy.kind == "official"
    assert own.card["note"] == "a file of the form of bloodmnist; compare with no published figures"
    relative = MedMnistConfig(flag="bloodmnist", file=Path("bloodmnist.npz"))
    assert load(relative, ctx(tmp_path, path.parent)).fingerprint == own.fingerprint


def test_flags() -> None:
    assert len(FLAGS) == 11 and len(MULTI_LABEL) == 1 and len(VOLUMES) == 6
    assert len({flag.md5 for flag in FLAGS.values()}) == 11
    assert sum(FLAGS["pneumoniamnist"].counts) == 5_856 and sum(FLAGS["bloodmnist"].counts) == 17_092
    assert all(name in str(MedMnistConfig.model_fields["flag"].description) for name in FLAGS)


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("chestmnist", "chestmnist gives an image several labels at once"),
        ("organmnist3d", "organmnist3d holds volumes, not images"),
        ("pneumonia", "MedMNIST has no set 'pneumonia'. Did you mean pneumoniamnist"),
        ("zzz", "MedMNIST has no set 'zzz'. Flags are pathmnist, "),
    ],
)
def test_flags_that_cannot_be_had(tmp_path: Path, flag: str, sentence: str) -> None:
    for step in (locate, load):
        with pytest.raises(DataError, match=sentence) as caught:
            step(MedMnistConfig(flag=flag), ctx(tmp_path))
        assert "\n" not in str(caught.value)


def test_absent_files(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"vision.medmnist \(pneumoniamnist\): pneumoniamnist.npz is not"):
        locate(MedMnistConfig(), ctx(tmp_path))
    with pytest.raises(DataError, match=r"no such file: own.npz"):
        locate(MedMnistConfig(file=Path("own.npz")), ctx(tmp_path))
    with pytest.raises(DataError, match="is not a folder"):
        locate(MedMnistConfig(), ctx(tmp_path, tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"val_labels": None}, "has no array val_labels"),
        ({"test_images": np.zeros((9, 28, 28))}, "test_images is float64 of shape"),
        (
            {"val_images": np.zeros((6, 28, 28, 28), np.uint8)},
            r"val_images is uint8 of shape \(6, 28, 28, 28\)",
        ),
        ({"val_images": np.zeros((0, 28, 28), np.uint8)}, "val_images is uint8 of shape"),
        ({"val_labels": np.zeros((6, 14), np.uint8)}, "val_labels gives an image 14 labels at once"),
        ({"val_labels": np.zeros((5, 1), np.uint8)}, "but 6 whole numbers were expected"),
        ({"val_labels": np.zeros((6, 1))}, "val_labels is float64"),
        ({"train_labels": np.full((40, 1), 2)}, "train_labels run from 2 to 2, .* classes 0 to 1"),
        ({"train_labels": np.full((40, 1), -1)}, "train_labels run from -1 to -1"),
        ({"train_images": np.array([{}] * 40)}, "cannot read .*Object arrays cannot be loaded"),
    ],
)
def test_one_sentence_for_each_file_of_another_form(
    tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    path = put(tmp_path / "own.npz", arrays(**changes))
    with pytest.raises(DataError, match=sentence) as caught:
        load(MedMnistConfig(file=path), ctx(tmp_path))
    assert "\n" not in str(caught.value) and "own.npz" in str(caught.value)


def test_files_that_are_no_npz(tmp_path: Path) -> None:
    path = put(tmp_path / "own.npz", arrays())
    whole = path.read_bytes()
    np.save(tmp_path / "array.npy", np.zeros(3))
    for raw in (b"", b"hello", whole[: len(whole) // 2], (tmp_path / "array.npy").read_bytes()):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"cannot read .*own.npz .*not an .npz file"):
            read_file(path, 2)
    harmed = bytearray(whole)
    harmed[200:400] = bytes(200)
    path.write_bytes(harmed)
    with pytest.raises(DataError, match=r"cannot read .*own.npz"):
        read_file(path, 2)


def test_real_chest_x_rays(tmp_path: Path) -> None:
    shared = os.environ.get("PEFTX_SHARED_DATA", "")
    path = Path(shared) / "vision" / "medmnist" / "pneumoniamnist_balanced.npz"
    if not shared or not path.is_file():
        pytest.skip("PEFTX_SHARED_DATA has no pneumoniamnist_balanced.npz")
    data = load(MedMnistConfig(file=path), ctx(tmp_path))
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 2428,
        "val": 270,
        "test": 468,
    }
    assert check_dataset(data).ok and data.classes == ("normal", "pneumonia")
    for split in data.splits.values():  # each split is balanced
        assert np.bincount(split.labels).tolist() == [len(split) // 2] * 2
        assert split[0][0].shape == (28, 28) and split[0][0].dtype == np.uint8
