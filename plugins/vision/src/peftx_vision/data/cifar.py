"""CIFAR-10 and CIFAR-100 in their official layouts: 32 x 32 colour images of 10 or 100 classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. Layouts, counts, class lists and
the MD5 of the archives: the data set page, https://www.cs.toronto.edu/~kriz/cifar.html. An image is 3072
bytes: 1024 red, 1024 green, 1024 blue, each row by row.

Binary version, files of fixed records: ``<1 x label><3072 x pixel>`` (CIFAR-10, folder
``cifar-10-batches-bin``) or ``<1 x coarse label><1 x fine label><3072 x pixel>`` (CIFAR-100, folder
``cifar-100-binary``). Python version, pickled dictionaries of ``data`` (uint8, rows x 3072) and ``labels`` or
``fine_labels`` (folders ``cifar-10-batches-py`` and ``cifar-100-python``), read by
`peftx_vision.data.pickled`. The binary version is what gets downloaded.

The official test set is `test`; the official train set is split into `train` and `val` by `split_seed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftx.data.archives import extract
from peftx.data.contract import DataContext, Dataset, Published
from peftx.data.copies import compare_copy
from peftx.data.fetch import Remote, fetch, has_checksum
from peftx.data.splits import limit, split
from peftx.errors import DataError
from peftx_vision.config.data import CifarConfig
from peftx_vision.data.arrays import ArraySplit, digest
from peftx_vision.data.cifar_classes import CIFAR10_CLASSES, CIFAR100_CLASSES
from peftx_vision.data.pickled import read_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftx_vision.data.arrays import Labels, Pixels

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "Layout",
    "Variant",
    "load",
    "load_cifar10",
    "load_cifar100",
    "locate",
    "locate_cifar10",
    "locate_cifar100",
    "read_batch",
]

_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
# the data set page forwards to the first address; the second is the one all the older software has
_SITES = ("https://cave.cs.toronto.edu/kriz/", "https://www.cs.toronto.edu/~kriz/")
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True, slots=True)
class Layout:
    """One official form: the archive, its folder, the files in it, the names of the classes.

    `label`: of a binary record, the number of the byte with the class; of a pickle, the key of the labels.
    `label_bytes`: bytes of a binary record before its pixels; 0 for pickles. `md5`: the published checksums of `train`
    and `test`, in that order, where there are any (torchvision's lists; none for the binary files).
    """

    archive: Remote
    folder: str
    train: tuple[str, ...]
    test: str
    label: int | str
    label_bytes: int
    md5: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the two data sets. `rows`: images in each train file; the test file has `test_rows`."""

    name: str
    classes: tuple[str, ...]
    binary: Layout
    python: Layout
    rows: int
    test_rows: int

    @property
    def layouts(self) -> tuple[Layout, Layout]:
        """The forms, the preferred one first."""
        return (self.binary, self.python)

    @property
    def published(self) -> Published:
        """Counts as the data set page states them; both sets are balanced."""
        train = self.rows * len(self.binary.train)
        classes = len(self.classes)
        return Published(
            counts={"train+val": train, "test": self.test_rows},
            classes=self.classes,
            per_class={"train+val": train // classes, "test": self.test_rows // classes},
            source=_PAGE,
        )


def _remote(name: str, md5: str, size: int) -> Remote:
    return Remote(name, tuple(site + name for site in _SITES), f"md5:{md5}", size)


CIFAR10 = Variant(
    name="vision.cifar10",
    classes=CIFAR10_CLASSES,
    binary=Layout(
        _remote("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", 170_052_171),
        "cifar-10-batches-bin",
        tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test_batch.bin",
        label=0,
        label_bytes=1,
    ),
    python=Layout(
        _remote("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", 170_498_071),
        "cifar-10-batches-py",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test_batch",
        label="labels",
        label_bytes=0,
        md5=(
            "c99cafc152244af753f735de768cd75f",
            "d4bba439e000b95fd0a9bffe97cbabec",
            "54ebc095f3ab1f0389bbae665268c751",
            "634d18415352ddfa80567beed471001a",
            "482c414d41f54cd18b22e5b47cb7c3cb",
            "40351d587109b95175f43aff81a1287e",
        ),
    ),
    rows=10_000,
    test_rows=10_000,
)

CIFAR100 = Variant(
    name="vision.cifar100",
    classes=CIFAR100_CLASSES,
    binary=Layout(
        _remote("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", 168_513_733),
        "cifar-100-binary",
        ("train.bin",),
        "test.bin",
        label=1,
        label_bytes=2,
    ),
    python=Layout(
        _remote("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437),
        "cifar-100-python",
        ("train",),
        "test",
        label="fine_labels",
        label_bytes=0,
        md5=("16019d7e3df5f24257cddd939b257f8d", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    ),
    rows=50_000,
    test_rows=10_000,
)


def locate_cifar10(config: CifarConfig, ctx: DataContext) -> None:
    """Make sure the files of CIFAR-10 are there; see `locate`."""
    locate(CIFAR10, ctx)


def locate_cifar100(config: CifarConfig, ctx: DataContext) -> None:
    """Make sure the files of CIFAR-100 are there; see `locate`."""
    locate(CIFAR100, ctx)


def load_cifar10(config: CifarConfig, ctx: DataContext) -> Dataset:
    """Return CIFAR-10; see `load`."""
    return load(CIFAR10, config, ctx)


def load_cifar100(config: CifarConfig, ctx: DataContext) -> Dataset:
    """Return CIFAR-100 with its fine labels; see `load`."""
    return load(CIFAR100, config, ctx)


def locate(variant: Variant, ctx: DataContext) -> tuple[Path, Layout]:
    """Return a complete folder of the data set and its layout.

    Looked for in this order: an extracted folder, then an archive, in the data root and in the cache; then
    the download. Archives are checked against their published MD5 and extracted into the cache.

    Raises DataError for an incomplete folder or a wrong checksum, NetworkError when there is nothing and no
    network.
    """
    cache = ctx.cache / variant.name
    places = [cache]
    root = ctx.checked_root()
    if root is not None:
        places = [root, root / variant.name.partition(".")[2], cache]
    for place in places:
        for layout in variant.layouts:
            named = (place / layout.folder, place / _stem(layout) / layout.folder)
            for folder in (*named, place):
                if _complete(folder, variant, layout, strict=folder in named):
                    return folder, layout
    for place in places:
        for layout in variant.layouts:
            if (place / layout.archive.name).is_file():
                return _unpacked(variant, layout, place, cache, offline=True), layout
    return _unpacked(variant, variant.binary, cache, cache, offline=ctx.offline), variant.binary


def _stem(layout: Layout) -> str:
    return layout.archive.name.removesuffix(".tar.gz")


def _complete(folder: Path, variant: Variant, layout: Layout, *, strict: bool) -> bool:
    """Say whether all files are in `folder`; DataError when, being `strict`, some are there and others not.

    Binary files are also checked for their size here, before anything heavy is imported.
    """
    files = (*layout.train, layout.test)
    absent = [name for name in files if not (folder / name).is_file()]
    if absent:
        if strict and len(absent) < len(files):
            raise DataError(
                f"{folder} has no {absent[0]}: the copy of {variant.name} is incomplete; "
                f"get it again from {layout.archive.urls[0]}"
            )
        return False
    if layout.label_bytes:
        for name in files:
            rows = variant.test_rows if name == layout.test else variant.rows
            _check_size(folder / name, (folder / name).stat().st_size, layout, rows)
    return True


def _check_size(path: Path, size: int, layout: Layout, rows: int) -> None:
    """Raise DataError unless a binary file of `size` bytes holds exactly `rows` records."""
    record = layout.label_bytes + _PIXELS
    if size != rows * record:
        raise DataError(
            f"{path} has {size:,} bytes, but {rows * record:,} ({rows:,} records of {record:,}) "
            f"were expected; get it again from {layout.archive.urls[0]}"
        )


def _unpacked(variant: Variant, layout: Layout, place: Path, cache: Path, *, offline: bool) -> Path:
    """Fetch or verify the archive in `place`, extract it into `cache`, return the folder with the files."""
    archive = fetch(layout.archive, place, offline=offline, what=variant.name)
    files = {f"{layout.folder}/{name}" for name in (*layout.train, layout.test)}
    unpacked = extract(archive, cache / _stem(layout), wanted=files.__contains__, most_bytes=1 << 30)
    folder = unpacked / layout.folder
    if not _complete(folder, variant, layout, strict=True):
        raise DataError(
            f"{archive} has no folder {layout.folder}; get it again from {layout.archive.urls[0]}"
        )
    return folder


def load(variant: Variant, config: CifarConfig, ctx: DataContext) -> Dataset:
    """Return the data set: uint8 images (32, 32, 3) and class indices.

    Raises DataError when a file is damaged or incomplete, and what `locate` raises.
    """
    import numpy as np

    folder, layout = locate(variant, ctx)
    parts = [read_batch(folder / name, layout, variant.rows, len(variant.classes)) for name in layout.train]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    del parts  # 150 MB
    val, train = split(labels, (config.val_fraction,), config.split_seed, variant.classes)
    held = {"train": len(train), "val": len(val), "test": variant.test_rows}
    train = train[limit(labels[train], config.limit_train, config.split_seed)]
    splits = {
        "train": ArraySplit(images[train], labels[train]),
        "val": ArraySplit(images[val], labels[val]),
        "test": ArraySplit(
            *read_batch(folder / layout.test, layout, variant.test_rows, len(variant.classes))
        ),
    }
    return Dataset(
        name=variant.name,
        splits=splits,
        classes=variant.classes,
        fingerprint=digest(splits.items(), variant.classes),
        card={
            "source": _PAGE,
            "licence": "none stated",
            "synthetic": False,
            "verified": False,
            "note": f"official {layout.folder}; val drawn from the official train set by split_seed",
        },
        published=variant.published,
        copy=compare_copy(variant.published, held, _checked(folder, layout, ctx.cache / variant.name)),
    )


def _checked(folder: Path, layout: Layout, cache: Path) -> bool | None:
    """Whether the files are the official ones, as far as their checksums or their archive's tell."""
    if folder == cache / _stem(layout) / layout.folder:
        return True  # out of an archive that was held to its checksum
    if not layout.md5:
        return None
    names = (*layout.train, layout.test)
    return all(has_checksum(folder / name, f"md5:{md5}") for name, md5 in zip(names, layout.md5, strict=True))


def read_batch(path: Path, layout: Layout, rows: int, classes: int) -> tuple[Pixels, Labels]:
    """Return images (rows, 32, 32, 3) and labels of one official file, binary or pickled.

    Raises DataError when it does not hold exactly `rows` images or a label is not below `classes`.
    """
    pixels, labels = (_binary if layout.label_bytes else _pickled)(path, layout, rows)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"{path} has labels outside 0 .. {classes - 1}; get it again from {layout.archive.urls[0]}"
        )
    return pixels.reshape(rows, 3, 32, 32).transpose(0, 2, 3, 1).copy(), labels


def _binary(path: Path, layout: Layout, rows: int) -> tuple[NDArray[np.uint8], Labels]:
    import numpy as np

    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error})") from error
    _check_size(path, raw.size, layout, rows)
    records = raw.reshape(rows, -1)
    assert isinstance(layout.label, int)
    return records[:, layout.label_bytes :], records[:, layout.label].astype(np.int64)


def _pickled(path: Path, layout: Layout, rows: int) -> tuple[NDArray[np.uint8], Labels]:
    import numpy as np

    found = read_numbers(path)
    pixels, labels = found.get("data"), found.get(str(layout.label))
    if not (
        isinstance(pixels, np.ndarray)
        and (pixels.dtype, pixels.shape) == (np.uint8, (rows, _PIXELS))
        and isinstance(labels, list)
        and len(labels) == rows
        and all(isinstance(label, int) for label in labels)
    ):
        raise DataError(
            f"{path} does not hold 'data' of {rows:,} x {_PIXELS:,} bytes and as many {layout.label!r}: "
            f"get it again from {layout.archive.urls[0]}"
        )
    return pixels, np.asarray(labels, dtype=np.int64)
