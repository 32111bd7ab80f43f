"""Oxford-IIIT Pet: 7,349 photographs of 37 breeds of cats and dogs, about 200 each.

O. Parkhi, A. Vedaldi, A. Zisserman, C. Jawahar, "Cats and Dogs", CVPR 2012. ``images/BREED_NUMBER.jpg``, and
``annotations/trainval.txt`` and ``test.txt``, lines of ``BREED_NUMBER CLASS SPECIES BREED``, numbered from 1. The
official test set is `test`; `val` is drawn from the official trainval by `split_seed`. Some of the files are PNG or GIF
by content, which is no matter here.
"""

from __future__ import annotations

import re
from pathlib import Path

from peftx.data.contract import DataContext, Dataset, Published
from peftx.errors import DataError
from peftx_vision.config.data import TrainTestConfig
from peftx_vision.data.listed import Listed, check_apart, checked_path, hold_out, read_text
from peftx_vision.data.release import Found, Part, Release, assemble, hosted
from peftx_vision.data.release import locate as find
from peftx_vision.data.released_classes import PETS

__all__ = ["RELEASE", "load", "locate"]

_SITE = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
_IMAGES = hosted(_SITE, "images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", 791_918_971)
_ANNOTATIONS = hosted(_SITE, "annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f", 19_173_078)
_LINE = re.compile(r"(?P<image>\S+_[0-9]+)\s+(?P<label>[0-9]{1,3})\s+[0-9]+\s+[0-9]+")

RELEASE = Release(
    name="vision.oxford_pets",
    folders=("oxford-iiit-pet", "oxford_pets"),
    parts={
        "images": Part("images", _IMAGES, "images"),
        # the masks of the segmentation, which lie beside the lists, are left packed
        "annotations": Part("annotations", _ANNOTATIONS, "annotations", ("trainval.txt", "test.txt")),
    },
    published=Published(
        counts={"train+val": 3680, "test": 3669},
        classes=tuple(name.replace("_", " ").title() for name in PETS),
        source="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    ),
    licence="CC BY-SA 4.0",
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
    classes = RELEASE.published.classes
    drawn = hold_out(parts.pop("train"), {"val": config.val_fraction}, config.split_seed, classes)
    note = "official test set; val drawn from the official trainval by split_seed"
    return assemble(RELEASE, found, found["images"], parts | drawn, config, note)


def _parts(found: Found) -> dict[str, Listed]:
    lists = {"train": "trainval.txt", "test": "test.txt"}
    parts = {name: _read(found["annotations"] / file) for name, file in lists.items()}
    check_apart(parts)
    return parts


def _read(path: Path) -> Listed:
    """Read a list; DataError, naming the line, for one of another form or whose class is not that of its image."""
    files: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{path}, line {number}"
        words = _LINE.fullmatch(line.strip())
        if words is None:
            raise DataError(f"{where}: expected BREED_NUMBER CLASS SPECIES BREED, got {line.strip()[:80]!r}")
        image, label = words["image"], int(words["label"])
        if not 1 <= label <= len(PETS):
            raise DataError(f"{where}: the class {label} is outside 1 .. {len(PETS)}")
        breed = image.rpartition("_")[0]
        if breed != PETS[label - 1]:
            raise DataError(f"{where}: {image} has the class {label}, which is {PETS[label - 1]}")
        files.append(checked_path(f"{image}.jpg", where))
        labels.append(label - 1)
    if not files:
        raise DataError(f"{path} lists no image")
    return Listed(path, tuple(files), tuple(labels))
