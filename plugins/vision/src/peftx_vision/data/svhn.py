"""SVHN, the Street View House Numbers: photographs of digits, cropped to 32 x 32 colour pixels.

Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu, A. Ng, "Reading Digits in Natural Images with Unsupervised Feature
Learning", NIPS workshop 2011. ``train_32x32.mat`` and ``test_32x32.mat`` (MATLAB 5) hold ``X``, uint8 (32, 32, 3, N),
and ``y``, (N, 1), the digit, with 10 for zero, which is class 0 here.

The official test set is `test`; `val` is drawn from the official train set by `split_seed`. The third official set,
`extra`, of 531,131 easier images, is not used.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from peftx.data.contract import DataContext, Dataset, Published
from peftx.data.splits import limit, split
from peftx.errors import DataError
from peftx_vision.config.data import TrainTestConfig
from peftx_vision.data.arrays import ArraySplit, digest
from peftx_vision.data.matlab import read_arrays
from peftx_vision.data.release import Part, Release, dataset_of, hosted
from peftx_vision.data.release import locate as find

if TYPE_CHECKING:
    from peftx_vision.data.arrays import Labels, Pixels

__all__ = ["RELEASE", "load", "locate", "read_file"]

_SITE = "http://ufldl.stanford.edu/housenumbers/"
_TRAIN, _TEST = (
    hosted(_SITE, "train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373", 182_040_794),
    hosted(_SITE, "test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3", 64_275_384),
)
RELEASE = Release(
    name="vision.svhn",
    folders=("svhn", "SVHN"),
    parts={"train": Part(_TRAIN.name, _TRAIN), "test": Part(_TEST.name, _TEST)},
    published=Published(
        counts={"train+val": 73_257, "test": 26_032}, classes=tuple("0123456789"), source=_SITE
    ),
    licence="non-commercial use, as its page says",
)


def locate(config: TrainTestConfig, ctx: DataContext) -> None:
    """Find the two files and compare their checksums.

    Raises DataError for a file that is missing beside the other or altered, NetworkError when there is nothing and no
    network.
    """
    find(RELEASE, ctx)


def load(config: TrainTestConfig, ctx: DataContext) -> Dataset:
    """Return the data set: uint8 images (32, 32, 3) and the digits as classes.

    Raises DataError when a file is not of the official form, and what `locate` raises.
    """
    found = find(RELEASE, ctx)
    images, labels = read_file(found["train"])
    classes = RELEASE.published.classes
    val, train = split(labels, (config.val_fraction,), config.split_seed, classes)
    kept = train[limit(labels[train], config.limit_train, config.split_seed)]
    splits = {
        "train": ArraySplit(images[kept], labels[kept]),
        "val": ArraySplit(images[val], labels[val]),
        "test": ArraySplit(*read_file(found["test"])),
    }
    held = {"train": len(train), "val": len(val), "test": len(splits["test"])}
    note = "cropped digits, official test set; val drawn from the official train set by split_seed; "
    note += "the set called extra is not used"
    return dataset_of(RELEASE, found, splits, held, digest(splits.items(), classes), note)


def read_file(path: Path) -> tuple[Pixels, Labels]:
    """Return images (N, 32, 32, 3) and digits (N,) of one official file; DataError when it is of another form."""
    import numpy as np

    pixels, digits = read_arrays(path, "X", "y")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[:3] != (32, 32, 3):
        raise DataError(
            f"{path}: X is {pixels.dtype} of shape {pixels.shape}, but images are uint8 (32, 32, 3, N)"
        )
    count = pixels.shape[3]
    if digits.size != count or not count or not 1 <= digits.min() <= digits.max() <= 10:
        raise DataError(f"{path}: y does not hold {count:,} digits of 1 .. 10")
    labels = digits.reshape(count).astype(np.int64) % 10  # ten stands for zero
    return np.ascontiguousarray(pixels.transpose(3, 0, 1, 2)), labels
