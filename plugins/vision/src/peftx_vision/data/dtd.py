"""DTD, the Describable Textures: 5,640 photographs of 47 textures, 120 each, with ten official splits.

M. Cimpoi, S. Maji, I. Kokkinos, S. Mohamed, A. Vedaldi, "Describing Textures in the Wild", CVPR 2014,
arXiv:1311.3618. ``images/CLASS/NAME.jpg``, and ``labels/train1.txt``, ``val1.txt``, ``test1.txt`` to number 10, lines
of ``CLASS/NAME.jpg``; a third of the images of each class in each. `fold` chooses the number; published scores are the
mean of all ten, or of the first alone.
"""

from __future__ import annotations

from peftx.data.contract import SPLITS, DataContext, Dataset, Published
from peftx.errors import DataError
from peftx_vision.config.data import DtdConfig
from peftx_vision.data.listed import Listed, checked_path, read_text
from peftx_vision.data.release import Found, Part, Release, assemble, hosted
from peftx_vision.data.release import locate as find
from peftx_vision.data.released_classes import DTD

__all__ = ["RELEASE", "load", "locate"]

_ARCHIVE = hosted(
    "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/",
    "dtd-r1.0.1.tar.gz",
    "fff73e5086ae6bdbea199a49dfb8a4c1",
    625_239_812,
)
RELEASE = Release(
    name="vision.dtd",
    folders=("dtd/dtd", "dtd"),
    parts={
        "images": Part("images", _ARCHIVE, "dtd/images"),
        "labels": Part("labels", _ARCHIVE, "dtd/labels"),
    },
    published=Published(
        counts=dict.fromkeys(SPLITS, 1880),
        classes=DTD,
        per_class=dict.fromkeys(SPLITS, 40),
        source="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
    ),
    licence="for research, as its page says",
)


def locate(config: DtdConfig, ctx: DataContext) -> None:
    """Find the images and read the lists of the fold; opens no image.

    Raises DataError for a copy that is incomplete or a list that is wrong, NetworkError when there is nothing and no
    network.
    """
    _parts(config, find(RELEASE, ctx))


def load(config: DtdConfig, ctx: DataContext) -> Dataset:
    """Return the images with the split of `config.fold`: RGB images and class indices.

    Raises DataError for an image that is missing or no image, and what `locate` raises.
    """
    found = find(RELEASE, ctx)
    note = f"official split {config.fold} of 10"
    return assemble(RELEASE, found, found["images"], _parts(config, found), config, note)


def _parts(config: DtdConfig, found: Found) -> dict[str, Listed]:
    index = {name: label for label, name in enumerate(DTD)}
    parts: dict[str, Listed] = {}
    for name in SPLITS:
        path = found["labels"] / f"{name}{config.fold}.txt"
        files: list[str] = []
        labels: list[int] = []
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            file = checked_path(line.strip(), where)
            folder, _, rest = file.partition("/")
            if folder not in index or not rest:
                raise DataError(f"{where}: expected CLASS/NAME.jpg of a class of DTD, got {file[:80]!r}")
            files.append(file)
            labels.append(index[folder])
        if not files:
            raise DataError(f"{path} lists no image")
        parts[name] = Listed(path, tuple(files), tuple(labels))
    return parts
