"""The digits of scikit-learn: 1,797 handwritten digits of 8 x 8 pixels, the pack's default because pip brings
them.

They are the test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998, UCI Machine
Learning Repository, CC BY 4.0); layout and counts: scikit-learn's `load_digits`, which ships the file. Grey
values 0 .. 16 become 0 .. 255. The part has no official split, so test and validation are drawn by
`split_seed`.
"""

from __future__ import annotations

from peftx.data.contract import DataContext, Dataset, Published
from peftx.data.copies import compare_copy
from peftx.data.splits import limit, split
from peftx.errors import DataError
from peftx_vision.config.data import DigitsConfig
from peftx_vision.data.arrays import ArraySplit, digest

__all__ = ["load", "locate"]

PUBLISHED = Published(
    counts={"train+val+test": 1797},
    classes=tuple("0123456789"),
    source="scikit-learn, load_digits",
)
_LARGEST_GREY = 16  # the pixels count the dark dots of a 4 x 4 block


def locate(config: DigitsConfig, ctx: DataContext) -> None:
    """Find scikit-learn, which ships the digits, without importing it; DataError when it is not installed."""
    from importlib.util import find_spec

    if find_spec("sklearn") is None:
        raise DataError(
            "vision.digits comes with scikit-learn, which is not installed: pip install scikit-learn"
        )


def load(config: DigitsConfig, ctx: DataContext) -> Dataset:
    """Return the digits as uint8 images (8, 8), split by `config`."""
    locate(config, ctx)
    import numpy as np
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / _LARGEST_GREY)).astype(np.uint8)
    labels = bunch.target.astype(np.int64)
    classes = tuple(str(name) for name in bunch.target_names)
    test, val, train = split(labels, (config.test_fraction, config.val_fraction), config.split_seed, classes)
    held = {"train": len(train), "val": len(val), "test": len(test)}
    train = train[limit(labels[train], config.limit_train, config.split_seed)]
    splits = {
        name: ArraySplit(images[rows], labels[rows])
        for name, rows in (("train", train), ("val", val), ("test", test))
    }
    return Dataset(
        name="vision.digits",
        splits=splits,
        classes=classes,
        fingerprint=digest(splits.items(), classes),
        card={
            "source": "https://archive.ics.uci.edu/dataset/80, as shipped by scikit-learn",
            "licence": "CC BY 4.0",
            "synthetic": False,
            "verified": True,
            "note": "8 x 8 pixels; no official split: test and val are drawn by split_seed",
        },
        published=PUBLISHED,
        copy=compare_copy(PUBLISHED, held, None),
    )
