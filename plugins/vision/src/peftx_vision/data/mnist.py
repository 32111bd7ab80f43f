"""MNIST and Fashion-MNIST in their official layout: 28 x 28 grey images of 10 classes, as four idx files.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", 1998.
H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv:1708.07747.

An idx file is a header of big-endian 32-bit numbers and then bytes: ``0x803, images, 28, 28`` and the pixels row
by row, or ``0x801, labels`` and the labels. Files may be compressed (.gz) or not. What is checked is the MD5 of
the content: gzip of the same content gives other bytes with every program.

The official test set is `test`; the official train set is split into `train` and `val` by `split_seed`. Whoever has the
two test files alone takes ``part="t10k"``: all three splits are drawn from them, and results call it a partial copy.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftx.data.contract import DataContext, Dataset, Published
from peftx.data.copies import Copy, compare_copy
from peftx.data.fetch import Remote, fetch
from peftx.data.files import opened, reading
from peftx.data.splits import limit, split
from peftx.errors import DataError
from peftx_vision.config.data import MnistConfig
from peftx_vision.data.arrays import ArraySplit, digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftx_vision.data.arrays import Labels, Pixels

__all__ = [
    "FASHION",
    "MNIST",
    "IdxFile",
    "Variant",
    "load",
    "load_fashion",
    "load_mnist",
    "locate",
    "locate_fashion",
    "locate_mnist",
    "read_images",
    "read_labels",
]

_SIDE = 28
_IMAGES, _LABELS = 0x803, 0x801


@dataclass(frozen=True, slots=True)
class IdxFile:
    """One official file. `packed`: MD5 of the official .gz, for downloads; `content`: MD5 of what is in it."""

    name: str
    rows: int
    packed: str
    content: str


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the two data sets. `files`: train images and labels, test images and labels; `folders`: where below
    a data root they may lie; `per_class`: images of each class in train and test, where all have as many."""

    name: str
    classes: tuple[str, ...]
    files: tuple[IdxFile, IdxFile, IdxFile, IdxFile]
    folders: tuple[str, ...]
    sites: tuple[str, ...]
    source: str
    licence: str
    per_class: tuple[int, int] | None = None

    @property
    def published(self) -> Published:
        """Counts and classes as the authors state them."""
        counts = {"train+val": self.files[0].rows, "test": self.files[2].rows}
        return Published(
            counts=counts,
            classes=self.classes,
            per_class=dict(zip(counts, self.per_class or (), strict=False)),
            source=self.source,
        )

    def remote(self, file: IdxFile) -> Remote:
        """The compressed file on the web."""
        name = f"{file.name}.gz"
        return Remote(name, tuple(site + name for site in self.sites), f"md5:{file.packed}")


MNIST = Variant(
    name="vision.mnist",
    classes=tuple("0123456789"),
    files=(
        IdxFile(
            "train-images-idx3-ubyte",
            60_000,
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "6bbc9ace898e44ae57da46a324031adb",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            60_000,
            "d53e105ee54ea40749a09fcbcd1e9432",
            "a25bea736e30d166cdddb491f175f624",
        ),
        IdxFile(
            "t10k-images-idx3-ubyte",
            10_000,
            "9fb629c4189551a2d022fa330f9573f3",
            "2646ac647ad5339dbf082846283269ea",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            10_000,
            "ec29112dd5afa0611ce80d1b7f02629c",
            "27ae3e4e09519cfbb04c329615203637",
        ),
    ),
    folders=("mnist", "MNIST/raw", "MNIST"),
    sites=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
    source="http://yann.lecun.com/exdb/mnist/",
    licence="CC BY-SA 3.0, as commonly stated",
)

FASHION = Variant(
    name="vision.fashion_mnist",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    files=(
        IdxFile(
            "train-images-idx3-ubyte",
            60_000,
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        ),
        IdxFile(
            "train-labels-idx1-ubyte",
            60_000,
            "25c81989df183df01b3e8a0aad5dffbe",
            "9018921c3c673c538a1fc5bad174d6f9",
        ),
        IdxFile(
            "t10k-images-idx3-ubyte",
            10_000,
            "bef4ecab320f06d8554ea6380940ec79",
            "8181f5470baa50b63fa0f6fddb340f0a",
        ),
        IdxFile(
            "t10k-labels-idx1-ubyte",
            10_000,
            "bb300cfdad3c16e7a12a480ee83cd310",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
    ),
    folders=("fashion_mnist", "fashion-mnist", "FashionMNIST/raw", "FashionMNIST"),
    sites=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    source="https://github.com/zalandoresearch/fashion-mnist",
    licence="MIT",
    per_class=(6_000, 1_000),
)


def locate_mnist(config: MnistConfig, ctx: DataContext) -> None:
    """Make sure the files of MNIST are there; see `locate`."""
    locate(MNIST, ctx, config.part)


def locate_fashion(config: MnistConfig, ctx: DataContext) -> None:
    """Make sure the files of Fashion-MNIST are there; see `locate`."""
    locate(FASHION, ctx, config.part)


def load_mnist(config: MnistConfig, ctx: DataContext) -> Dataset:
    """Return MNIST; see `load`."""
    return load(MNIST, config, ctx)


def load_fashion(config: MnistConfig, ctx: DataContext) -> Dataset:
    """Return Fashion-MNIST; see `load`."""
    return load(FASHION, config, ctx)


def locate(variant: Variant, ctx: DataContext, part: str = "all") -> tuple[Path, ...]:
    """Return the paths of the files of `part`, compressed or not, in the order of `variant.files`.

    All four, or the two of the test set for `t10k`. Looked for in the folders of the set below the data root, in the
    root itself, and in the cache; then downloaded into the cache.

    Raises DataError for a folder with some of the files or a download with a wrong checksum, NetworkError when
    there is nothing and no network.
    """
    files = variant.files if part == "all" else variant.files[2:]
    root = ctx.checked_root()
    if root is not None:
        for place in (*(root / name for name in variant.folders), root):
            found = [path for path in (_present(place, file) for file in files) if path is not None]
            if len(found) == len(files):
                return tuple(found)
            if found:
                raise DataError(_incomplete(variant, place, found))
    cache = ctx.cache / variant.name
    return tuple(
        _present(cache, file) or fetch(variant.remote(file), cache, offline=ctx.offline, what=variant.name)
        for file in files
    )


def _incomplete(variant: Variant, place: Path, found: list[Path]) -> str:
    names = {path.name.removesuffix(".gz") for path in found}
    absent = next(file.name for file in variant.files if file.name not in names)
    alone = names == {file.name for file in variant.files[2:]}
    return (
        f"{place} has no {absent} (nor {absent}.gz): the copy of {variant.name} is incomplete; get it from "
        f"{variant.sites[0]}{absent}.gz" + (", or use the test files alone with --data.part t10k" * alone)
    )


def _present(folder: Path, file: IdxFile) -> Path | None:
    paths = (folder / file.name, folder / f"{file.name}.gz")
    return next((path for path in paths if path.is_file()), None)


def load(variant: Variant, config: MnistConfig, ctx: DataContext) -> Dataset:
    """Return the data set: uint8 images (28, 28) and class indices.

    Raises DataError when a file is damaged, incomplete or not the official one, and what `locate` raises.
    """
    whole = config.part == "all"
    paths = locate(variant, ctx, config.part)
    files = variant.files if whole else variant.files[2:]
    halves = [
        (read_images(paths[at], files[at]), read_labels(paths[at + 1], files[at + 1], len(variant.classes)))
        for at in range(0, len(files), 2)
    ]
    images, labels = halves[0]
    fractions = (config.val_fraction,) if whole else (config.test_fraction, config.val_fraction)
    *held, train = split(labels, fractions, config.split_seed, variant.classes)
    count = len(train) + len(held[-1])
    train = train[limit(labels[train], config.limit_train, config.split_seed)]
    test = halves[1] if whole else (images[held[0]], labels[held[0]])
    splits = {
        "train": ArraySplit(images[train], labels[train]),
        "val": ArraySplit(images[held[-1]], labels[held[-1]]),
        "test": ArraySplit(*test),
    }
    return Dataset(
        name=variant.name,
        splits=splits,
        classes=variant.classes,
        fingerprint=digest(splits.items(), variant.classes),
        card={
            "source": variant.source,
            "licence": variant.licence,
            "synthetic": False,
            "verified": False,
            "note": "official idx files; val drawn from the official train set by split_seed"
            if whole
            else "the official test files alone; train, val and test drawn from them by split_seed; compare with "
            "no published figures",
        },
        published=variant.published if whole else None,
        copy=compare_copy(variant.published, {"train": count, "test": len(test[1])}, True)
        if whole
        else Copy("partial", "the official test files alone, in three parts"),
    )


def read_images(path: Path, file: IdxFile) -> Pixels:
    """Return the images of an idx file, (rows, 28, 28) uint8; DataError when it is not the official one."""
    return _content(path, file, (_IMAGES, file.rows, _SIDE, _SIDE)).reshape(file.rows, _SIDE, _SIDE)


def read_labels(path: Path, file: IdxFile, classes: int) -> Labels:
    """Return the labels of an idx file, (rows,) int64.

    Raises DataError when it is not the official one or a label is not below `classes`.
    """
    import numpy as np

    labels = _content(path, file, (_LABELS, file.rows)).astype(np.int64)
    if len(labels) and int(labels.max()) >= classes:
        raise DataError(f"{path} has the label {int(labels.max())}, but labels run from 0 to {classes - 1}")
    return labels


def _content(path: Path, file: IdxFile, header: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the bytes behind the header, which must be `header`, of a file whose content has the official MD5."""
    import numpy as np

    start = b"".join(number.to_bytes(4, "big") for number in header)
    body = file.rows * (_SIDE * _SIDE if len(header) > 2 else 1)
    with reading(path), opened(path) as stream:
        raw = stream.read(len(start) + body + 1)  # what is compressed may unpack to anything
    if raw[: len(start)] != start:
        raise DataError(
            f"{path} is not an idx file of {file.rows:,} {'images of 28 x 28' if len(header) > 2 else 'labels'}: "
            "its header says otherwise; get it again from its source"
        )
    if len(raw) != len(start) + body:
        held = "more" if len(raw) > len(start) + body else f"{len(raw):,}"
        raise DataError(
            f"{path} holds {held} bytes, but {len(start) + body:,} were expected; get it again from its source"
        )
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != file.content:
        raise DataError(
            f"the content of {path} has md5 {found}, but {file.content} is that of the official {file.name}: "
            "it is altered or belongs to another data set"
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=len(start))
