"""EuroSAT: 27,000 Sentinel-2 satellite images of 64 x 64 pixels, 10 classes of land use, in red, green and blue.

P. Helber, B. Bischke, A. Dengel, D. Borth, "EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land
Cover Classification", arXiv:1709.00029. ``2750/CLASS/CLASS_NUMBER.jpg``. The other version, of 13 bands, is not read.
There is no official split: `test` and `val` are drawn by `split_seed`, so scores compare with published ones only as
far as their splits do.
"""

from __future__ import annotations

from pathlib import Path

from peftx.data.contract import DataContext, Dataset, Published
from peftx.errors import DataError
from peftx_vision.config.data import EuroSatConfig
from peftx_vision.data.listed import Listed, hold_out
from peftx_vision.data.release import Part, Release, assemble, hosted
from peftx_vision.data.release import locate as find
from peftx_vision.data.released_classes import EUROSAT

__all__ = ["RELEASE", "load", "locate"]

_ARCHIVE = hosted(
    "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/",
    "EuroSAT.zip",
    "c8fa014336c82ac7804f0398fcb19387",
)
RELEASE = Release(
    name="vision.eurosat",
    folders=("eurosat", "EuroSAT"),
    parts={"images": Part("2750", _ARCHIVE, "2750")},
    published=Published(
        counts={"train+val+test": 27_000}, classes=EUROSAT, source="https://github.com/phelber/eurosat"
    ),
    licence="MIT",
)


def locate(config: EuroSatConfig, ctx: DataContext) -> None:
    """Find the folders of the classes; opens no image.

    Raises DataError for a copy that is incomplete, NetworkError when there is nothing and no network.
    """
    _listed(find(RELEASE, ctx)["images"])


def load(config: EuroSatConfig, ctx: DataContext) -> Dataset:
    """Return the images, split by `config`: RGB images and class indices.

    Raises DataError for an image that is no image, and what `locate` raises.
    """
    found = find(RELEASE, ctx)
    fractions = {"test": config.test_fraction, "val": config.val_fraction}
    parts = hold_out(_listed(found["images"]), fractions, config.split_seed, EUROSAT)
    note = "RGB version; no official split: test and val are drawn by split_seed"
    return assemble(RELEASE, found, found["images"], parts, config, note)


def _listed(folder: Path) -> Listed:
    """The images of all classes; DataError when one has none."""
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(EUROSAT):
        images = sorted(path.name for path in (folder / name).glob("*.jpg") if not path.name.startswith("."))
        if not images:
            raise DataError(
                f"{folder / name} holds no image: the copy of {RELEASE.name} is incomplete; get it again from "
                f"{_ARCHIVE.urls[0]}"
            )
        files += [f"{name}/{image}" for image in images]
        labels += [label] * len(images)
    return Listed(folder, tuple(files), tuple(labels))
