"""Sets of FGVC: tiny sets with splits in JSON, and one sentence for each way they can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from peftx.cli import main
from peftx.data import DataContext
from peftx.data.checks import check_dataset
from peftx.errors import DataError
from peftx_vision.config.data import FgvcConfig
from peftx_vision.data.fgvc import SETS, load, locate


def put(root: Path, name: str = "flowers", folder: str = "", first: int = 1) -> Path:
    """A set whose classes are numbered from `first` in twos: two images each in train, one in a few for the rest.
    The red of an image is the place of its class."""
    one = SETS[name]
    place = root / (folder or name)
    for green, (part, per_class) in enumerate((("train", 2), ("val", 1), ("test", 1))):
        held: dict[str, int] = {}
        for index in range(one.classes if part == "train" else 5):
            for number in range(per_class):
                file = f"{index:03d}.class/{part}_{number}.png"
                path = place / one.images / file
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (2, 2), (index % 256, 2 * green + number, index // 256)).save(path)
                held[file] = first + 2 * index
        (place / f"{part}.json").write_text(json.dumps(held))
    return place


def ctx(tmp_path: Path, root: Path | None = None) -> DataContext:
    return DataContext(root, tmp_path / "cache", offline=True)


@pytest.mark.parametrize("name", list(SETS))
def test_each_set(tmp_path: Path, name: str) -> None:
    put(tmp_path / "fgvc", name, folder=SETS[name].folders[-1])
    data = load(FgvcConfig(path=name), ctx(tmp_path, tmp_path))
    classes = SETS[name].classes
    assert {part: len(split) for part, split in data.splits.items()} == {
        "train": 2 * classes,
        "val": 5,
        "test": 5,
    }
    assert data.name == f"vision.fgvc:{name}" and data.classes[:3] == ("1", "3", "5")
    for image, label in (*data.splits["train"], *data.splits["test"]):
        red, _, blue = image.getpixel((0, 0))
        assert red + 256 * blue == label
    report = check_dataset(data)
    assert {check.what.split()[0] for check in report.checks if not check.ok} == {"samples"}
    assert report.copy.startswith("partial copy: ")


def test_the_published_counts_are_those_of_the_sets() -> None:
    whole = {"cub": 11_788, "nabirds": 48_562, "flowers": 8_189, "dogs": 20_580, "cars": 16_185}
    assert {name: sum(one.counts) for name, one in SETS.items()} == whole


def test_the_laws_of_data_sets(tmp_path: Path) -> None:
    put(tmp_path)
    assert main(["check", "vision.fgvc:flowers", "--data-root", str(tmp_path)]) == 0


def test_limit_train_and_the_cache(tmp_path: Path) -> None:
    put(tmp_path / "cache" / "vision.fgvc", "cub")
    few = load(FgvcConfig(path="cub", limit_train=200), ctx(tmp_path))
    whole = load(FgvcConfig(path="cub"), ctx(tmp_path))
    assert sorted(few.splits["train"].labels) == list(range(200)) and len(few.splits["val"]) == 5  # type: ignore[arg-type]
    assert few.fingerprint != whole.fingerprint


def write(name: str, content: object) -> Callable[[Path], None]:
    text = content if isinstance(content, str) else json.dumps(content)
    return lambda folder: (folder / name).write_text(text) and None


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (write("val.json", "{"), r"val\.json is not JSON"),
        (write("val.json", []), r"val\.json: expected an object of paths and classes, got list"),
        (write("val.json", {}), r"val\.json lists no image"),
        (write("val.json", {"a.png": "1"}), r"val\.json: the class of a\.png is '1', expected a whole number"),
        (write("val.json", {"a.png": True}), "the class of a.png is 'True', expected a whole number"),
        (write("val.json", {"a.png": 2}), r"the class 2 of a\.png has no image in train\.json, .* 1 \.\. 203"),
        (write("val.json", {"../a.png": 1}), "the path '../a.png' leads outside the folder"),
        (write("test.json", {"000.class/train_1.png": 1}), r"lists 000\.class/train_1\.png, which train\.json"),
        (write("test.json", {"a.png": 1}), r"test\.json lists a\.png, but there is no such image in"),
        (write("train.json", {"a.png": 1}), r"train\.json has images of 1 classes, but Oxford Flowers has 102"),
        (lambda folder: (folder / "test.json").unlink(), r"has no test\.json; bring the data set with its lists"),
        (lambda folder: (folder / "000.class/test_0.png").write_text("hello"), "is not an image of a known kind"),
    ],
)  # fmt: skip
def test_one_sentence_for_each_way_to_be_wrong(
    tmp_path: Path, harm: Callable[[Path], None], sentence: str
) -> None:
    harm(put(tmp_path))
    with pytest.raises(DataError, match=sentence) as caught:
        load(FgvcConfig(path="flowers"), ctx(tmp_path, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("flower", "FGVC has no set 'flower'. Did you mean flowers"),
        ("zzz", "FGVC has no set 'zzz'. Sets are cub, nabirds, flowers, dogs, cars"),
        ("cars", "vision.fgvc:cars is not there, and it cannot be downloaded: put its folder cars"),
    ],
)
def test_sets_that_cannot_be_had(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        locate(FgvcConfig(path=name), ctx(tmp_path, tmp_path))
    assert all(known in str(FgvcConfig.model_fields["path"].description) for known in SETS)
