"""Folders of images: their layouts, the splits drawn from them, and one sentence for each way they can be
wrong."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from peftx.cli import main
from peftx.data import DataContext
from peftx.errors import DataError
from peftx_vision.config.data import ImageFolderConfig
from peftx_vision.data.imagefolder import load, locate

CTX = DataContext(None, Path("unused"), offline=True)


def put(folder: Path, count: int, shade: int = 0, name: str = "{}.png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (4, 4), (shade, number % 256, number // 256)).save(folder / name.format(number))


def loaded(root: Path, **options: object) -> object:
    return load(ImageFolderConfig(path=root, **options), CTX)  # type: ignore[arg-type]


def counts(data: object) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}  # type: ignore[attr-defined]


def test_official_splits_are_kept(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        for shade, name in enumerate(("dog", "ant", "cat")):
            put(tmp_path / part / name, count, shade * 10)
    data = load(ImageFolderConfig(path=tmp_path), CTX)
    assert data.classes == ("ant", "cat", "dog")
    assert counts(data) == {"train": 15, "val": 6, "test": 9}
    image, label = data.splits["val"][4]
    assert (data.classes[label], image.getpixel((0, 0)), image.mode) == ("dog", (0, 0, 0), "RGB")
    assert data.card["note"] == "train, val, test as in the folder"


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_without_test_there_is_no_test_split(tmp_path: Path, name: str) -> None:
    for part in ("train", name):
        put(tmp_path / part / "a", 4, 1)
        put(tmp_path / part / "b", 4, 2)
    assert counts(loaded(tmp_path)) == {"train": 8, "val": 8}


def test_validation_is_drawn_from_train_when_only_test_is_given(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a", 20, 1)
    put(tmp_path / "train" / "b", 10, 2)
    put(tmp_path / "test" / "a", 3, 1)
    put(tmp_path / "test" / "b", 3, 2)
    data = load(ImageFolderConfig(path=tmp_path, val_fraction=0.1), CTX)
    assert counts(data) == {"train": 27, "val": 3, "test": 6}
    assert data.card["note"] == "train, test as in the folder; val drawn from train by split_seed"


@pytest.mark.parametrize("below", ["", "train"])
def test_one_folder_is_split_by_seed(tmp_path: Path, below: str) -> None:
    put(tmp_path / below / "a", 50, 1)
    put(tmp_path / below / "b", 30, 2)
    data, again, other = (load(ImageFolderConfig(path=tmp_path, split_seed=s), CTX) for s in (0, 0, 1))
    assert counts(data) == {"train": 48, "val": 16, "test": 16}
    assert data.fingerprint == again.fingerprint != other.fingerprint
    seen = [image.getpixel((0, 0)) for split in data.splits.values() for image, _ in split]
    assert len(set(seen)) == len(seen) == 80
    assert all(image.getpixel((0, 0))[0] == label + 1 for image, label in data.splits["test"])
    assert list(data.splits["val"].labels).count(0) in (9, 10, 11)
    assert data.card["note"] == "no splits of its own: val and test are drawn by split_seed"


def test_limit_train(tmp_path: Path) -> None:
    put(tmp_path / "a", 50, 1)
    put(tmp_path / "b", 50, 2)
    assert counts(loaded(tmp_path, limit_train=10)) == {"train": 10, "val": 20, "test": 20}


def test_order_is_that_of_names_at_any_depth(tmp_path: Path) -> None:
    put(tmp_path / "train" / "b" / "deep", 1, 3, "z.png")
    put(tmp_path / "train" / "b", 1, 2, "a.PNG")
    put(tmp_path / "train" / "a", 1, 1, "x.png")
    put(tmp_path / "val" / "a", 1, 1)
    put(tmp_path / "val" / "b", 1, 2)
    split = load(ImageFolderConfig(path=tmp_path), CTX).splits["train"]
    assert split.files == ("train/a/x.png", "train/b/a.PNG", "train/b/deep/z.png")  # type: ignore[attr-defined]


def test_hidden_and_foreign_files_are_passed_over(tmp_path: Path) -> None:
    for part in ("train", "val"):
        put(tmp_path / part / "a", 2, 1)
        put(tmp_path / part / "b", 2, 2)
    (tmp_path / "train" / ".git").mkdir()
    (tmp_path / "__MACOSX" / "train" / "c").mkdir(parents=True)
    (tmp_path / "train" / "a" / "._0.png").write_bytes(b"\0\5\26\7")
    (tmp_path / "train" / "a" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    assert counts(loaded(tmp_path)) == {"train": 4, "val": 4}


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    put(tmp_path / "train", 10, 1)
    put(tmp_path / "tram", 10, 2)
    data = load(ImageFolderConfig(path=tmp_path), CTX)
    assert data.classes == ("train", "tram")


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    put(tmp_path / "a", 10, 1)
    put(tmp_path / "b", 10, 2)
    before = load(ImageFolderConfig(path=tmp_path), CTX).fingerprint
    Image.new("RGB", (9, 9), (200, 1, 1)).save(tmp_path / "a" / "0.png")
    changed = load(ImageFolderConfig(path=tmp_path), CTX).fingerprint
    (tmp_path / "a" / "0.png").rename(tmp_path / "a" / "00.png")
    assert len({before, changed, load(ImageFolderConfig(path=tmp_path), CTX).fingerprint}) == 3


def test_the_card_keeps_its_law_with_the_path_in_the_name(tmp_path: Path) -> None:
    put(tmp_path / "a", 10, 1)
    put(tmp_path / "b", 10, 2)
    assert main(["check", f"vision.imagefolder:{tmp_path}/", "--law", "card"]) == 0


def test_a_relative_path_may_lie_in_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "root" / "pets" / "a", 5, 1)
    put(tmp_path / "root" / "pets" / "b", 5, 2)
    monkeypatch.chdir(tmp_path)
    locate(ImageFolderConfig(path=Path("pets")), DataContext(tmp_path / "root", Path("unused")))
    with pytest.raises(DataError, match="no such folder: pets"):
        locate(ImageFolderConfig(path=Path("pets")), CTX)


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", 5, 1)
    put(tmp_path / "set" / "b", 5, 2)
    (tmp_path / "set" / "a").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    # a loop of links must not be walked for ever
    (tmp_path / "set" / "b" / "loop").symlink_to(tmp_path / "set", target_is_directory=True)
    assert counts(loaded(tmp_path / "set")) == {"train": 6, "val": 2, "test": 2}


def one_class(root: Path) -> None:
    put(root / "a", 5)


def empty(root: Path) -> None:
    pass


def loose(root: Path) -> None:
    put(root, 3)


def loose_splits(root: Path) -> None:
    put(root / "train", 3)
    put(root / "val", 3)


def empty_class(root: Path) -> None:
    put(root / "a", 5)
    (root / "b").mkdir()


def single(root: Path) -> None:
    put(root / "a", 5)
    put(root / "b", 1)


def pair(root: Path) -> None:
    put(root / "a", 5)
    put(root / "b", 2)


def no_train(root: Path) -> None:
    for part in ("val", "test"):
        put(root / part / "a", 2)
        put(root / part / "b", 2)


def two_vals(root: Path) -> None:
    for part in ("train", "val", "valid"):
        put(root / part / "a", 2)
        put(root / part / "b", 2)


def missing_in_val(root: Path) -> None:
    for name in ("a", "b", "c"):
        put(root / "train" / name, 2)
        if name != "c":
            put(root / "val" / name, 2)


def extra_in_val(root: Path) -> None:
    for name in ("a", "b", "c"):
        put(root / "val" / name, 2)
        if name != "c":
            put(root / "train" / name, 2)


def text_as_image(root: Path) -> None:
    put(root / "a", 5)
    put(root / "b", 5)
    (root / "b" / "9.jpg").write_text("hello")


def empty_image(root: Path) -> None:
    put(root / "a", 5)
    put(root / "b", 5)
    (root / "b" / "9.jpg").write_bytes(b"")


def dangling(root: Path) -> None:
    put(root / "a", 5)
    put(root / "b", 5)
    (root / "b" / "9.jpg").symlink_to(root / "nowhere.jpg")
    (root / "b" / "8.jpg").mkdir()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (empty, "holds no class folders"),
        (loose, "holds 3 images but no class folders"),
        (loose_splits, "train holds 3 images but no class folders"),
        (one_class, "holds one class only, 'a'"),
        (empty_class, "the class folder .*b holds no image"),
        (single, "class 'b' in .* has a single image; splitting needs at least 3"),
        (pair, "class 'b' in .* has only 2 images; splitting needs at least 3"),
        (no_train, "has a folder (val|test) but no folder train"),
        (two_vals, "has two folders for val: val and valid; keep one"),
        (missing_in_val, r"val has no class 'c' while train has it: .*\(2 in val, 3 in train\)"),
        (extra_in_val, "val has a class 'c' while train has none"),
        (text_as_image, r"b/9\.jpg is not an image of a known kind"),
        (empty_image, r"b/9\.jpg is empty"),
    ],
)
def test_one_sentence_for_each_way_to_be_wrong(tmp_path: Path, make: object, sentence: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    make(root)  # type: ignore[operator]
    with pytest.raises(DataError, match=sentence) as caught:
        loaded(root)
    assert "\n" not in str(caught.value)


def test_images_of_every_kind_in_one_folder_come_out_alike(tmp_path: Path) -> None:
    """Grey, palette, alpha, 16 bits, CMYK and turned images side by side: handled, and none refused."""
    ramp = (np.arange(400).reshape(20, 20) % 256).astype(np.uint8)
    grey = Image.fromarray(ramp)
    turned = Image.fromarray(np.stack([ramp] * 3, 2)[:, :10])
    exif = turned.getexif()
    exif[0x0112] = 6
    kinds = {
        "grey.png": grey,
        "bit.png": grey.convert("1"),
        "palette.png": grey.convert("P"),
        "alpha.png": grey.convert("RGBA"),
        "grey_alpha.png": grey.convert("LA"),
        "deep.png": Image.fromarray(ramp.astype(np.uint16) * 257),
        "cmyk.jpg": grey.convert("CMYK"),
        "colour.webp": grey.convert("RGB"),
        "moving.gif": grey,
    }
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for file, image in kinds.items():
            image.save(tmp_path / name / file)
        turned.save(tmp_path / name / "turned.jpg", exif=exif)
    data = loaded(tmp_path)
    seen = [image for split in data.splits.values() for image, _ in split]
    assert len(seen) == 20 and {image.mode for image in seen} == {"RGB"}
    assert sorted(image.size for image in seen) == [(20, 10)] * 2 + [(20, 20)] * 18


def test_a_link_that_leads_nowhere_is_no_image(tmp_path: Path) -> None:
    dangling(tmp_path)
    assert sum(counts(loaded(tmp_path)).values()) == 10


def test_missing_folders_and_files_are_said_by_locate(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        locate(ImageFolderConfig(path=tmp_path / "absent"), CTX)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file, but a folder of class folders was expected"):
        locate(ImageFolderConfig(path=tmp_path / "file"), CTX)
    one_class(tmp_path / "set")
    with pytest.raises(DataError, match="one class only"):
        locate(ImageFolderConfig(path=tmp_path / "set"), CTX)


def test_a_truncated_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    put(tmp_path / "a", 5)
    put(tmp_path / "b", 5)
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b" / "9.png")
    (tmp_path / "b" / "9.png").write_bytes((tmp_path / "b" / "9.png").read_bytes()[:500])
    data = load(ImageFolderConfig(path=tmp_path), CTX)
    with pytest.raises(DataError, match=r"b/9\.png"):
        for split in data.splits.values():
            list(split)


def test_real_photographs(tmp_path: Path) -> None:
    shared = os.environ.get("PEFTX_SHARED_DATA", "")
    archive = Path(shared) / "vision" / "cifar10" / "cifar10_jpeg_test.tar.xz"
    if not shared or not archive.is_file():
        pytest.skip("PEFTX_SHARED_DATA has no cifar10_jpeg_test.tar.xz")
    taken: dict[str, bytes] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isreg() and member.name.endswith(("0.jpg", "1.jpg")):
                stream = tar.extractfile(member)
                assert stream is not None
                taken[member.name] = stream.read()
            if len(taken) >= 250:
                break
    for name, raw in taken.items():
        path = tmp_path / name.removeprefix("test/")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(raw)
    data = load(ImageFolderConfig(path=tmp_path), CTX)
    assert sum(counts(data).values()) == len(taken) and data.classes[:2] == ("airplane", "automobile")
    for split in data.splits.values():
        for index, (image, _) in enumerate(split):
            raw = taken[f"test/{split.files[index]}"]  # type: ignore[attr-defined]
            assert np.array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")))
