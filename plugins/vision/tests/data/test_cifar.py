"""CIFAR in its official layouts: tiny files of the same form, real pixels where they are at hand, and every
way to lack data.

The layouts under test are the official ones with fewer rows; nothing else about them is changed.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from peftx.data import DataContext
from peftx.data.checks import check_dataset
from peftx.errors import DataError, NetworkError
from peftx_vision.config.data import CifarConfig
from peftx_vision.data import cifar
from peftx_vision.data.cifar import CIFAR10, CIFAR100, Layout, Variant, load, locate, read_batch

ROWS = {"vision.cifar10": (20, 20), "vision.cifar100": (300, 100)}
TINY = {
    variant.name: replace(variant, rows=ROWS[variant.name][0], test_rows=ROWS[variant.name][1])
    for variant in (CIFAR10, CIFAR100)
}
FORMS = [(name, form) for name in TINY for form in ("binary", "python")]


def ctx(tmp_path: Path, root: Path | None = None, offline: bool = True) -> DataContext:
    return DataContext(root, tmp_path / "cache", offline=offline)


def batch_bytes(layout: Layout, images: np.ndarray, labels: np.ndarray) -> bytes:
    """One official file: `images` (N, 32, 32, 3), `labels` (N,)."""
    flat = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    if not layout.label_bytes:
        names = [f"image_{index}.png".encode() for index in range(len(labels))]
        content = {
            b"batch_label": b"batch",
            str(layout.label): labels.tolist(),
            "data": flat,
            "filenames": names,
        }
        if layout.label == "fine_labels":
            content["coarse_labels"] = [label // 5 for label in labels.tolist()]
        return pickle.dumps(content, protocol=3)
    columns = [labels.astype(np.uint8)[:, None], flat]
    if layout.label_bytes == 2:  # the coarse label comes first
        columns.insert(0, (labels // 5).astype(np.uint8)[:, None])
    return np.concatenate(columns, axis=1).tobytes()


def official_files(variant: Variant, layout: Layout) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
    """Files by name, and by name the images in them; labels go round the classes."""
    draw = np.random.default_rng(0)
    files, images = {}, {}
    for name in (*layout.train, layout.test):
        rows = variant.test_rows if name == layout.test else variant.rows
        images[name] = draw.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8)
        files[name] = batch_bytes(layout, images[name], np.arange(rows) % len(variant.classes))
    return files, images


def put_folder(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    return folder


def put_archive(variant: Variant, form: str, folder: Path, files: dict[str, bytes]) -> Variant:
    """Write the official archive with these files; return the variant that expects its checksum."""
    layout: Layout = getattr(variant, form)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / layout.archive.name
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, raw in {**files, "readme.html": b"<html>"}.items():
            info = tarfile.TarInfo(f"{layout.folder}/{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    remote = replace(layout.archive, checksum="md5:" + hashlib.md5(path.read_bytes()).hexdigest())
    return replace(variant, **{form: replace(layout, archive=remote)})


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_a_folder_in_the_official_layout(tmp_path: Path, name: str, form: str) -> None:
    variant = TINY[name]
    layout = getattr(variant, form)
    files, images = official_files(variant, layout)
    folder = put_folder(tmp_path / "root" / layout.folder, files)
    data = load(variant, CifarConfig(), ctx(tmp_path, tmp_path / "root"))
    assert check_dataset(data).ok
    assert data.classes == variant.classes
    held = len(variant.classes)  # a tenth of the tiny train set
    counts = {part: len(split) for part, split in data.splits.items()}
    assert counts["val"] == round(0.1 * variant.rows * len(layout.train)) and counts["val"] <= held
    # the test split is the test file, in order
    for index in (0, 1, counts["test"] - 1):
        image, label = data.splits["test"][index]
        assert np.array_equal(image, images[layout.test][index])
        assert label == index % len(variant.classes)
    # train and val together are the train files, each image once, with its own label
    labelled = {
        image.tobytes(): index % len(variant.classes)
        for part in layout.train
        for index, image in enumerate(images[part])
    }
    seen = [(image.tobytes(), label) for part in ("train", "val") for image, label in data.splits[part]]
    assert sorted(seen) == sorted(labelled.items())
    assert not (tmp_path / "cache").exists()
    # the folder itself may be named as well, and the same files give the same fingerprint
    again = load(variant, CifarConfig(), ctx(tmp_path, folder))
    assert again.fingerprint == data.fingerprint
    assert load(variant, CifarConfig(split_seed=1), ctx(tmp_path, folder)).fingerprint != data.fingerprint


@pytest.mark.parametrize("name", list(TINY))
def test_what_copy_it_is(tmp_path: Path, name: str) -> None:
    variant = TINY[name]
    root = tmp_path / "root"
    for form, folder_kind in (("binary", "counted"), ("python", "altered")):
        layout = getattr(variant, form)
        files, _ = official_files(variant, layout)
        put_folder(root / form / layout.folder, files)
        loose = load(variant, CifarConfig(), ctx(tmp_path, root / form))
        assert loose.copy is not None and loose.copy.kind == folder_kind
        archived = load(
            put_archive(variant, form, root / "archive" / form, files),
            CifarConfig(limit_train=len(variant.classes)),
            ctx(tmp_path, root / "archive" / form),
        )
        assert archived.copy is not None and archived.copy.kind == "official"
    md5 = tuple(hashlib.md5(files[part]).hexdigest() for part in (*layout.train, layout.test))
    same = replace(variant, python=replace(variant.python, md5=md5))
    official = load(same, CifarConfig(), ctx(tmp_path, root / "python"))
    assert official.copy is not None and official.copy.kind == "official"


def test_the_published_checksums_are_one_for_each_file() -> None:
    for variant in (CIFAR10, CIFAR100):
        assert len(set(variant.python.md5)) == len(variant.python.train) + 1 and not variant.binary.md5


def test_fine_labels_not_coarse(tmp_path: Path) -> None:
    layout = CIFAR100.binary
    path = tmp_path / "train.bin"
    path.write_bytes(bytes([4, 73]) + bytes(1024) + bytes([9]) * 1024 + bytes([255]) * 1024)
    images, labels = read_batch(path, layout, 1, 100)
    assert labels.tolist() == [73] and CIFAR100.classes[73] == "shark"
    assert images.shape == (1, 32, 32, 3) and images[0, 5, 6].tolist() == [0, 9, 255]


def test_limit_train_keeps_the_other_splits(tmp_path: Path) -> None:
    variant = TINY["vision.cifar10"]
    put_folder(tmp_path / "root" / variant.binary.folder, official_files(variant, variant.binary)[0])
    data = load(variant, CifarConfig(limit_train=30), ctx(tmp_path, tmp_path / "root"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 30, "val": 10, "test": 20}
    assert np.bincount(np.asarray(data.splits["train"].labels)).tolist() == [3] * 10


@pytest.mark.parametrize(("name", "form"), FORMS)
@pytest.mark.parametrize("place", ["root", "cache"])
def test_an_archive_put_there_by_hand(tmp_path: Path, name: str, form: str, place: str) -> None:
    variant = TINY[name]
    files, _ = official_files(variant, getattr(variant, form))
    context = ctx(tmp_path, tmp_path / "root")
    (tmp_path / "root").mkdir()
    folder = tmp_path / "root" if place == "root" else context.cache / name
    variant = put_archive(variant, form, folder, files)
    assert check_dataset(load(variant, CifarConfig(), context)).ok
    # extracted once, into the cache, and found there the next time without the archive
    assert sorted(p.name for p in (tmp_path / "root").iterdir()) == (
        [getattr(variant, form).archive.name] if place == "root" else []
    )
    (folder / getattr(variant, form).archive.name).unlink()
    assert locate(variant, context)[1] is getattr(variant, form)


def test_a_damaged_archive_is_refused_and_nothing_extracted(tmp_path: Path) -> None:
    variant = TINY["vision.cifar10"]
    root = tmp_path / "root"
    variant = put_archive(variant, "binary", root, official_files(variant, variant.binary)[0])
    archive = root / variant.binary.archive.name
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz has md5 .* incomplete or altered"):
        locate(variant, ctx(tmp_path, root))
    assert not (tmp_path / "cache").exists()


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    variant = put_archive(TINY["vision.cifar10"], "binary", root, {})
    with pytest.raises(DataError, match="has no folder cifar-10-batches-bin"):
        locate(variant, ctx(tmp_path, root))


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_an_incomplete_copy_is_refused(tmp_path: Path, name: str, form: str) -> None:
    variant = TINY[name]
    layout = getattr(variant, form)
    folder = put_folder(tmp_path / "root" / layout.folder, official_files(variant, layout)[0])
    context = ctx(tmp_path, tmp_path / "root")
    whole = (folder / layout.train[-1]).read_bytes()
    (folder / layout.train[-1]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=f"{layout.train[-1]} .*get (it|the file) again"):
        load(variant, CifarConfig(), context)
    (folder / layout.train[-1]).unlink()
    with pytest.raises(DataError, match=f"has no {layout.train[-1]}: the copy of {name} is incomplete"):
        locate(variant, context)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_labels_beyond_the_classes_are_refused(tmp_path: Path, name: str, form: str) -> None:
    variant = TINY[name]
    layout = getattr(variant, form)
    path = tmp_path / "batch"
    path.write_bytes(
        batch_bytes(layout, np.zeros((2, 32, 32, 3), dtype=np.uint8), np.array([0, len(variant.classes)]))
    )
    with pytest.raises(DataError, match=f"labels outside 0 .. {len(variant.classes) - 1}"):
        read_batch(path, layout, 2, len(variant.classes))


def test_a_pickle_that_is_another_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(
        pickle.dumps({"data": np.zeros((2, 3072), dtype=np.int64), "labels": [0, 1]}, protocol=3)
    )
    with pytest.raises(DataError, match="does not hold 'data' of 2 x 3,072 bytes and as many 'labels'"):
        read_batch(path, CIFAR10.python, 2, 10)


def test_a_hostile_batch_is_refused(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> object:
            return os.mkdir, (str(tmp_path / "harm"),)

    path = tmp_path / "data_batch_1"
    path.write_bytes(pickle.dumps({"data": Harmful(), "labels": [0, 1]}, protocol=3))
    with pytest.raises(DataError, match=r"asks for .*mkdir"):
        read_batch(path, CIFAR10.python, 2, 10)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("variant", [CIFAR10, CIFAR100], ids=["cifar10", "cifar100"])
def test_without_files_and_network_the_message_says_all(tmp_path: Path, variant: Variant) -> None:
    with pytest.raises(NetworkError) as caught:
        locate(variant, ctx(tmp_path))
    message = str(caught.value)
    assert variant.name in message and variant.binary.archive.urls[0] in message
    assert str(tmp_path / "cache" / variant.name / variant.binary.archive.name) in message
    with pytest.raises(DataError, match=r"the data root .* is not a folder"):
        locate(variant, ctx(tmp_path, tmp_path / "absent"))


def test_missing_data_are_found_fast_and_before_torch(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from peftx.data import DataContext\nfrom peftx.errors import NetworkError\n"
        "from peftx_vision.config.data import CifarConfig\nfrom peftx_vision.data.cifar import locate_cifar10\n"
        "try: locate_cifar10(CifarConfig(), DataContext.create())\n"
        "except NetworkError as error: print(error, [m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])\n"
    )
    environment = os.environ | {"PEFTX_DATA": str(tmp_path), "PEFTX_OFFLINE": "1"}
    seconds = []
    while not seconds or (
        seconds[-1] >= 5 and len(seconds) < 3
    ):  # a busy machine may take longer, but not always
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        seconds.append(time.monotonic() - begin)
    assert done.stdout.startswith("vision.cifar10: cifar-10-binary.tar.gz is not there")
    assert done.stdout.rstrip().endswith("[]")
    assert min(seconds) < 5


def test_the_published_checksums() -> None:
    # as listed on the data set page
    assert {
        layout.archive.name: layout.archive.checksum for v in (CIFAR10, CIFAR100) for layout in v.layouts
    } == {
        "cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-10-python.tar.gz": "md5:c58f30108f718f92721af3b95e74349a",
        "cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8",
        "cifar-100-python.tar.gz": "md5:eb9058c3a382ffc7106e4002c42a8d85",
    }
    assert CIFAR10.published.counts == CIFAR100.published.counts == {"train+val": 50_000, "test": 10_000}
    assert CIFAR10.published.per_class["train+val"] == 5000 and CIFAR100.published.per_class["test"] == 100
    assert len(set(CIFAR100.classes)) == 100 and sorted(CIFAR100.classes) == list(CIFAR100.classes)


@pytest.fixture(scope="module")
def real() -> tuple[np.ndarray, np.ndarray]:
    """1,000 real train images of CIFAR-10, without loss."""
    shared = os.environ.get("PEFTX_SHARED_DATA", "")
    path = Path(shared) / "vision" / "cifar10" / "cifar10_lossless_1000.npz"
    if not shared or not path.is_file():
        pytest.skip("PEFTX_SHARED_DATA has no cifar10_lossless_1000.npz")
    with np.load(path, allow_pickle=False) as stored:
        return stored["images"], stored["labels"].astype(np.int64)


@pytest.mark.parametrize("form", ["binary", "python"])
def test_real_images_come_back_unchanged(
    tmp_path: Path, real: tuple[np.ndarray, np.ndarray], form: str
) -> None:
    images, labels = real
    layout = getattr(CIFAR10, form)
    path = tmp_path / layout.train[0]
    path.write_bytes(batch_bytes(layout, images, labels))
    found, found_labels = read_batch(path, layout, 1000, 10)
    assert np.array_equal(found, images) and np.array_equal(found_labels, labels)
    # the first ten rows of the official data_batch_1
    names = [cifar.CIFAR10_CLASSES[label] for label in found_labels[:4]]
    assert names == ["frog", "truck", "truck", "deer"]
