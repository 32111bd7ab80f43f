"""Food-101: 101,000 photographs of 101 dishes, 750 of each to train on and 250 to test on.

L. Bossard, M. Guillaumin, L. Van Gool, "Food-101 - Mining Discriminative Components with Random Forests", ECCV 2014.
``images/CLASS/NAME.jpg``, and ``meta/train.json`` and ``test.json``, objects of ``{CLASS: ["CLASS/NAME", ...]}``. The
training images were not cleaned, on purpose. The official test set is `test`; `val` is drawn from the official train
set by `split_seed`.
"""

from __future__ import annotations

import json
from pathlib import Path

from peftx.data.contract import DataContext, Dataset, Published
from peftx.errors import DataError
from peftx_vision.config.data import TrainTestConfig
from peftx_vision.data.listed import Listed, check_apart, checked_path, hold_out, read_text
from peftx_vision.data.release import Found, Part, Release, assemble, hosted
from peftx_vision.data.release import locate as find
from peftx_vision.data.released_classes import FOOD101

__all__ = ["RELEASE", "load", "locate"]

_ARCHIVE = hosted(
    "http://data.vision.ee.ethz.ch/cvl/",
    "food-101.tar.gz",
    "85eeb15f3717b99a5da872d97d918f87",
    4_996_278_331,
)
RELEASE = Release(
    name="vision.food101",
    folders=("food-101", "food101"),
    parts={
        "images": Part("images", _ARCHIVE, "food-101/images"),
        "meta": Part("meta", _ARCHIVE, "food-101/meta"),
    },
    published=Published(
        counts={"train+val": 75_750, "test": 25_250},
        classes=FOOD101,
        per_class={"train+val": 750, "test": 250},
        source="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    ),
    licence="none stated; the photographs are of foodspotting.com",
    most_bytes=8 << 30,
)


def locate(config: TrainTestConfig, ctx: DataContext) -> None:
    """Find the images and read the lists; opens no image.

    Raises DataError for a copy that is incomplete or a list that is wrong, NetworkError when there is nothing and no
    network.
    """
    _parts(find(RELEASE, ctx))


def load(config: TrainTestConfig, ctx: DataContext) -> Dataset:
    """Return the images: RGB images and class indices.

    Raises DataError for an image that is missing or no image, and what `locate` raises.
    """
    found = find(RELEASE, ctx)
    parts = _parts(found)
    drawn = hold_out(parts.pop("train"), {"val": config.val_fraction}, config.split_seed, FOOD101)
    note = "official test set; val drawn from the official train set by split_seed"
    return assemble(RELEASE, found, found["images"], parts | drawn, config, note)


def _parts(found: Found) -> dict[str, Listed]:
    parts = {name: _read(found["meta"] / f"{name}.json") for name in ("train", "test")}
    check_apart(parts)
    return parts


def _read(path: Path) -> Listed:
    """Read a list; DataError when it is of another form, names another class, or is empty."""
    try:
        held = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(held, dict) or not all(isinstance(names, list) for names in held.values()):
        raise DataError(f"{path}: expected an object of classes and lists of images")
    index = {name: label for label, name in enumerate(FOOD101)}
    files: list[str] = []
    labels: list[int] = []
    for name, images in sorted(held.items()):
        if name not in index:
            raise DataError(f"{path}: {name!r} is no class of Food-101")
        for image in images:
            if not isinstance(image, str):
                raise DataError(f"{path}: {str(image)[:40]!r} of {name} is no path")
            files.append(checked_path(f"{image}.jpg", str(path)))
            labels.append(index[name])
    if not files:
        raise DataError(f"{path} lists no image")
    return Listed(path, tuple(files), tuple(labels))
