"""MNIST and Fashion-MNIST: tiny files of the official form, the real test set where it is at hand, and one
sentence for each way they can be wrong."""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peftx.data import DataContext
from peftx.data.checks import check_dataset
from peftx.errors import DataError, NetworkError
from peftx_vision.config.data import MnistConfig
from peftx_vision.data.mnist import FASHION, MNIST, Variant, load, locate, read_images, read_labels

ROWS = (100, 20)


def ctx(tmp_path: Path, root: Path | None = None) -> DataContext:
    return DataContext(root, tmp_path / "cache", offline=True)


def idx(array: np.ndarray) -> bytes:
    """A file of the official form: type 8 (bytes), the number of sides, the sides, the bytes."""
    sides = b"".join(side.to_bytes(4, "big") for side in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sides + array.astype(np.uint8).tobytes()


def tiny(variant: Variant = MNIST) -> tuple[Variant, list[bytes], list[np.ndarray]]:
    """The variant with few rows and the checksums of these files, their content, and the arrays."""
    draw = np.random.default_rng(len(variant.name))
    arrays = []
    for rows in ROWS:
        arrays += [draw.integers(0, 256, (rows, 28, 28), dtype=np.uint8), np.arange(rows) % 10]
    raws = [idx(array) for array in arrays]
    files = tuple(
        replace(file, rows=len(array), content=hashlib.md5(raw).hexdigest())
        for file, array, raw in zip(variant.files, arrays, raws, strict=True)
    )
    per_class = (ROWS[0] // 10, ROWS[1] // 10) if variant.per_class else None
    return replace(variant, files=files, per_class=per_class), raws, arrays  # type: ignore[arg-type]


def put(folder: Path, variant: Variant, raws: list[bytes], packed: bool) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, raw in zip(variant.files, raws, strict=True):
        name = f"{file.name}.gz" if packed else file.name
        (folder / name).write_bytes(gzip.compress(raw, 1) if packed else raw)
    return folder


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("official", [MNIST, FASHION], ids=lambda variant: variant.name)
def test_the_official_form(tmp_path: Path, official: Variant, packed: bool) -> None:
    variant, raws, arrays = tiny(official)
    for below in ("", *variant.folders):
        put(tmp_path / f"at {below.replace('/', ' ')}" / below, variant, raws, packed)
    roots = sorted(path for path in tmp_path.iterdir())
    found = [load(variant, MnistConfig(val_fraction=0.2), ctx(tmp_path, root)) for root in roots]
    assert len({data.fingerprint for data in found}) == 1 and len(found) == 1 + len(variant.folders)
    data = found[0]
    assert check_dataset(data).ok, check_dataset(data).to_dict()
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 80, "val": 20, "test": 20}
    # the test split is the test file, in order; train and val are the train file, each image once with its label
    assert np.array_equal(np.stack([image for image, _ in data.splits["test"]]), arrays[2])
    assert [label for _, label in data.splits["test"]] == arrays[3].tolist()
    seen = sorted((image.tobytes(), label) for name in ("train", "val") for image, label in data.splits[name])
    assert seen == sorted((image.tobytes(), int(label)) for image, label in zip(*arrays[:2], strict=True))
    assert np.bincount(data.splits["val"].labels).tolist() == [2] * 10
    assert data.classes == official.classes and data.card["verified"] is False


def test_the_split_follows_its_seed_and_limit_train_leaves_the_rest(tmp_path: Path) -> None:
    variant, raws, _ = tiny()
    root = put(tmp_path / "root", variant, raws, packed=False)
    configs = (MnistConfig(), MnistConfig(split_seed=1), MnistConfig(limit_train=30))
    one, other, few = (load(variant, config, ctx(tmp_path, root)) for config in configs)
    assert len({one.fingerprint, other.fingerprint, few.fingerprint}) == 3
    assert np.bincount(few.splits["train"].labels).tolist() == [3] * 10
    assert [label for _, label in few.splits["val"]] == [label for _, label in one.splits["val"]]
    assert not np.array_equal(one.splits["val"].images, other.splits["val"].images)  # type: ignore[attr-defined]


def test_the_test_files_alone(tmp_path: Path) -> None:
    """A hundredth of the images is no reason to call the rest MNIST: name, note and figures say what it is."""
    variant, raws, arrays = tiny()
    root = put(tmp_path / "root", variant, raws, packed=False)
    for file in variant.files[:2]:
        (root / file.name).unlink()
    with pytest.raises(DataError, match=r"incomplete; get it from .*, or use .* --data.part t10k$"):
        load(variant, MnistConfig(), ctx(tmp_path, root))
    config = MnistConfig(part="t10k", test_fraction=0.25, val_fraction=0.05)
    data = load(variant, config, ctx(tmp_path, root))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 14, "val": 1, "test": 5}
    seen = sorted((image.tobytes(), label) for split in data.splits.values() for image, label in split)
    assert seen == sorted((image.tobytes(), int(label)) for image, label in zip(*arrays[2:], strict=True))
    assert data.name == "vision.mnist" and data.published is None
    assert "compare with no published figures" in data.card["note"]
    assert data.copy is not None and data.copy.kind == "partial"


def test_fractions_are_those_of_the_part() -> None:
    assert MnistConfig(val_fraction=0.85).val_fraction == 0.85
    config = MnistConfig()
    assert MnistConfig.model_validate_json(config.model_dump_json()) == config
    with pytest.raises(ValueError, match="test_fraction is for part t10k"):
        MnistConfig(test_fraction=0.1)
    with pytest.raises(ValueError, match=r"0\.85 and test_fraction 0\.2 leave nothing to train on"):
        MnistConfig(part="t10k", val_fraction=0.85)


def test_the_published_figures() -> None:
    for variant in (MNIST, FASHION):
        assert variant.published.counts == {"train+val": 60_000, "test": 10_000}
        assert len(set(variant.classes)) == 10
        sums = [value for file in variant.files for value in (file.packed, file.content)]
        assert len(set(sums)) == 8 and all(len(value) == 32 for value in sums)
    assert FASHION.published.per_class == {"train+val": 6_000, "test": 1_000}
    assert not MNIST.published.per_class


def test_without_files_and_network_it_says_what_is_missing_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=r"train-images-idx3-ubyte.gz is not there") as caught:
        locate(MNIST, ctx(tmp_path))
    assert str(tmp_path / "cache" / "vision.mnist") in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is not a folder"):
        locate(MNIST, ctx(tmp_path, tmp_path / "nowhere"))


def test_a_cache_begun_is_gone_on_with(tmp_path: Path) -> None:
    variant, raws, _ = tiny()
    folder = put(tmp_path / "cache" / "vision.mnist", variant, raws, packed=True)
    assert len(locate(variant, ctx(tmp_path))) == 4
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(NetworkError, match=r"t10k-labels-idx1-ubyte.gz is not there"):
        locate(variant, ctx(tmp_path))


def shorter(raw: bytes) -> bytes:
    return raw[:-1]


def longer(raw: bytes) -> bytes:
    return raw + b"\0"


def changed(raw: bytes) -> bytes:
    return raw[:-1] + bytes([raw[-1] ^ 1])


def little_endian(raw: bytes) -> bytes:
    return b"".join(raw[start : start + 4][::-1] for start in range(0, 16, 4)) + raw[16:]


def labels_instead(raw: bytes) -> bytes:
    return idx(np.zeros(100))


def other_sides(raw: bytes) -> bytes:
    return idx(np.zeros((100, 14, 56)))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (shorter, "holds 78,415 bytes, but 78,416 were expected"),
        (longer, "holds more bytes, but 78,416 were expected"),
        (changed, "has md5 [0-9a-f]{32}, but [0-9a-f]{32} is that of the official train-images-idx3-ubyte"),
        (little_endian, "is not an idx file of 100 images of 28 x 28"),
        (labels_instead, "is not an idx file of 100 images of 28 x 28"),
        (other_sides, "is not an idx file of 100 images of 28 x 28"),
        (lambda raw: b"", "is not an idx file of 100 images"),
    ],
)
def test_one_sentence_for_each_file_that_is_not_the_official_one(
    tmp_path: Path, harm: object, sentence: str, packed: bool
) -> None:
    variant, raws, _ = tiny()
    raws[0] = harm(raws[0])  # type: ignore[operator]
    root = put(tmp_path / "root", variant, raws, packed)
    with pytest.raises(DataError, match=sentence) as caught:
        load(variant, MnistConfig(), ctx(tmp_path, root))
    assert "\n" not in str(caught.value) and "train-images-idx3-ubyte" in str(caught.value)


def test_damaged_gzip_missing_files_and_labels_out_of_range(tmp_path: Path) -> None:
    variant, raws, _ = tiny()
    root = put(tmp_path / "root", variant, raws, packed=True)
    path = root / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for part in (whole[: len(whole) // 2], b"\x1f\x8b" + b"\0" * 40, b"hello"):
        path.write_bytes(part)
        with pytest.raises(DataError, match=r"cannot read .*t10k-images-idx3-ubyte.gz .*it is damaged"):
            load(variant, MnistConfig(), ctx(tmp_path, root))
    path.unlink()
    with pytest.raises(DataError, match=r"has no t10k-images-idx3-ubyte \(nor t10k-images-idx3-ubyte.gz\)"):
        locate(variant, ctx(tmp_path, root))
    raw = idx(np.full(20, 10))
    file = replace(variant.files[3], content=hashlib.md5(raw).hexdigest())
    (tmp_path / file.name).write_bytes(raw)
    with pytest.raises(DataError, match="has the label 10, but labels run from 0 to 9"):
        read_labels(tmp_path / file.name, file, 10)


def test_the_real_test_set() -> None:
    folder = Path(os.environ.get("PEFTX_SHARED_DATA", "")) / "vision" / "mnist_t10k"
    if not os.environ.get("PEFTX_SHARED_DATA") or not folder.is_dir():
        pytest.skip("PEFTX_SHARED_DATA has no mnist_t10k")
    images = read_images(folder / "t10k-images-idx3-ubyte.gz", MNIST.files[2])
    labels = read_labels(folder / "t10k-labels-idx1-ubyte.gz", MNIST.files[3], 10)
    assert images.shape == (10_000, 28, 28) and labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert images[0].max() == 255 and images[:, 0].max() == 0  # ink on an empty border
    with pytest.raises(DataError, match="altered or belongs to another data set"):
        read_images(folder / "t10k-images-idx3-ubyte.gz", FASHION.files[2])
