"""Oxford 102 Flowers: 8,189 photographs of 102 flowers, 10 of each to train on, 10 to validate, the rest to test.

M.-E. Nilsback, A. Zisserman, "Automated Flower Classification over a Large Number of Classes", ICVGIP 2008.
``jpg/image_NUMBER.jpg``; ``imagelabels.mat`` has the classes of all images, from 1; ``setid.mat`` has the numbers of
the images of each split: ``trnid`` is `train`, ``valid`` is `val`, ``tstid`` is `test`. All three are official.
"""

from __future__ import annotations

from peftx.data.contract import SPLITS, DataContext, Dataset, Published
from peftx.errors import DataError
from peftx_vision.config.data import Flowers102Config
from peftx_vision.data.listed import Listed
from peftx_vision.data.matlab import read_arrays
from peftx_vision.data.release import Found, Part, Release, assemble, hosted
from peftx_vision.data.release import locate as find
from peftx_vision.data.released_classes import FLOWERS102

__all__ = ["RELEASE", "load", "locate"]

_SITE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
_KEYS = {"train": "trnid", "val": "valid", "test": "tstid"}

RELEASE = Release(
    name="vision.flowers102",
    folders=("flowers-102", "flowers102"),
    parts={
        "images": Part(
            "jpg",
            hosted(_SITE, "102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", 344_862_509),
            "jpg",
        ),
        "labels": Part(
            "imagelabels.mat", hosted(_SITE, "imagelabels.mat", "e0620be6f572b9609742df49c70aed4d")
        ),
        "splits": Part("setid.mat", hosted(_SITE, "setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c")),
    },
    published=Published(
        counts={"train": 1020, "val": 1020, "test": 6149},
        classes=FLOWERS102,
        per_class={"train": 10, "val": 10},
        source=_SITE,
    ),
    licence="none stated",
)


def locate(config: Flowers102Config, ctx: DataContext) -> None:
    """Find the images and the two files of labels and splits; opens none of them but to compare checksums.

    Raises DataError for a copy that is incomplete or altered, NetworkError when there is nothing and no network.
    """
    find(RELEASE, ctx)


def load(config: Flowers102Config, ctx: DataContext) -> Dataset:
    """Return the images with their official splits: RGB images and class indices.

    Raises DataError for an image that is missing or no image, and what `locate` raises.
    """
    found = find(RELEASE, ctx)
    return assemble(RELEASE, found, found["images"], _parts(found), config, "official splits")


def _parts(found: Found) -> dict[str, Listed]:
    (classes,) = read_arrays(found["labels"], "labels")
    classes = classes.reshape(-1).astype(int)
    if not len(classes) or not 1 <= classes.min() <= classes.max() <= len(FLOWERS102):
        raise DataError(
            f"{found['labels']} has no classes 1 .. {len(FLOWERS102)}; get it again from its source"
        )
    sets = read_arrays(found["splits"], *(_KEYS[name] for name in SPLITS))
    parts: dict[str, Listed] = {}
    for name, numbers in zip(SPLITS, sets, strict=True):
        images = numbers.reshape(-1).astype(int).tolist()
        strange = next((image for image in images if not 1 <= image <= len(classes)), None)
        if strange is not None or not images:
            what = f"image {strange}, but there are {len(classes):,}" if images else "no image"
            raise DataError(f"{found['splits']}: {_KEYS[name]} names {what}; get it again from its source")
        parts[name] = Listed(
            found["splits"],
            tuple(f"image_{image:05d}.jpg" for image in images),
            tuple(int(classes[image - 1]) - 1 for image in images),
        )
    return parts
