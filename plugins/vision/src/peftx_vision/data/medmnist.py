"""MedMNIST v2: small medical images, 28 x 28, one ``.npz`` a set, chosen by its flag.

J. Yang et al., "MedMNIST v2: A Large-Scale Lightweight Benchmark for 2D and 3D Biomedical Image Classification",
arXiv:2110.14795. A file holds ``{train,val,test}_images``, uint8 (N, 28, 28) or (N, 28, 28, 3), and
``{train,val,test}_labels``, integers (N, 1). It is read without pickle. All three splits are official.

Sets with one label an image are read; chestmnist, with several, and the sets of volumes are refused. The grades
of retinamnist are taken as classes. Another file of the same form, such as a part of a set, is read with the
option `file`; it is not held to the official checksum, and results on it compare with no published ones.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from peftx.data.contract import SPLITS, DataContext, Dataset, Published
from peftx.data.copies import compare_copy
from peftx.data.fetch import Remote, fetch, has_checksum
from peftx.data.splits import limit
from peftx.errors import DataError, near_matches
from peftx_vision.config.data import MedMnistConfig
from peftx_vision.data.arrays import ArraySplit, digest
from peftx_vision.data.medmnist_flags import FLAGS, MULTI_LABEL, VOLUMES, Flag

if TYPE_CHECKING:
    from peftx_vision.data.arrays import Labels, Pixels

__all__ = ["load", "locate", "read_file"]

_PAGE = "https://github.com/MedMNIST/MedMNIST"
_FILES = "https://zenodo.org/record/6496656/files/"


def locate(config: MedMnistConfig, ctx: DataContext) -> None:
    """Make sure the set's file is there, downloading it when it may; opens no array.

    Raises DataError for an unknown flag, a set that is not of one label an image, or a wrong checksum, and
    NetworkError when the file is absent and cannot be fetched.
    """
    _file(config, ctx, _flag(config.flag))


def _flag(name: str) -> Flag:
    if name in FLAGS:
        return FLAGS[name]
    if name in MULTI_LABEL:
        raise DataError(
            f"{name} gives an image several labels at once, and classification here takes one: "
            f"choose another flag, such as {next(iter(FLAGS))}"
        )
    if name in VOLUMES:
        raise DataError(f"{name} holds volumes, not images: choose another flag, such as {next(iter(FLAGS))}")
    hint = near_matches(name, FLAGS) or f" Flags are {', '.join(FLAGS)}."
    raise DataError(f"MedMNIST has no set {name!r}.{hint}")


def _file(config: MedMnistConfig, ctx: DataContext, flag: Flag) -> Path:
    root = ctx.checked_root()
    if config.file is not None:
        path = config.file.expanduser()
        if root is not None and not path.is_absolute() and not path.exists():
            path = root / path
        if not path.is_file():
            raise DataError(f"no such file: {path}")
        return path
    name = f"{config.flag}.npz"
    remote = Remote(name, (f"{_FILES}{name}?download=1",), f"md5:{flag.md5}")
    if root is not None:
        for folder in (root / "medmnist", root):
            if (folder / name).is_file():
                return fetch(remote, folder, offline=True, what=f"vision.medmnist ({config.flag})")
    cache = ctx.cache / "vision.medmnist"
    return fetch(remote, cache, offline=ctx.offline, what=f"vision.medmnist ({config.flag})")


def load(config: MedMnistConfig, ctx: DataContext) -> Dataset:
    """Return the set with its official splits: uint8 images (28, 28) or (28, 28, 3) and class indices.

    Raises DataError when the file is damaged, lacks an array, or holds other than one label an image, and what
    `locate` raises.
    """
    flag = _flag(config.flag)
    path = _file(config, ctx, flag)
    parts = read_file(path, len(flag.classes))
    held = {name: len(labels) for name, (_, labels) in parts.items()}
    images, labels = parts["train"]
    kept = limit(labels, config.limit_train, config.split_seed)
    parts["train"] = images[kept], labels[kept]
    splits = {name: ArraySplit(*parts[name]) for name in SPLITS}
    official = config.file is None
    published = Published(
        counts=dict(zip(SPLITS, flag.counts, strict=True)), classes=flag.classes, source=_PAGE
    )
    return Dataset(
        name="vision.medmnist",
        splits=splits,
        classes=flag.classes,
        fingerprint=digest(splits.items(), flag.classes),
        card={
            "source": _PAGE if official else str(config.file),
            "licence": "CC BY 4.0" if official else "the file's own",
            "synthetic": False,
            "verified": False,
            "note": f"{config.flag}, official splits"
            if official
            else f"a file of the form of {config.flag}; compare with no published figures",
        },
        published=published if official else None,
        copy=compare_copy(published, held, official or has_checksum(path, f"md5:{flag.md5}")),
    )


def read_file(path: Path, classes: int) -> dict[str, tuple[Pixels, Labels]]:
    """Return images and labels of each split of a file of MedMNIST's form.

    Raises DataError when it cannot be read, lacks an array, or an array is of another form.
    """
    import numpy as np

    try:
        # an .npy would come out as an array, which is no context manager
        if not zipfile.is_zipfile(path):
            raise ValueError("not an .npz file")
        with np.load(path, allow_pickle=False) as stored:
            keys = [f"{name}_{what}" for name in SPLITS for what in ("images", "labels")]
            absent = [key for key in keys if key not in stored.files]
            if absent:
                raise DataError(f"{path} has no array {absent[0]}, so it is not of MedMNIST's form")
            arrays = {key: stored[key] for key in keys}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot read {path} ({cause}); get it again from its source") from error
    return {
        name: (
            _images(path, name, arrays[f"{name}_images"]),
            _labels(path, name, arrays[f"{name}_labels"], len(arrays[f"{name}_images"]), classes),
        )
        for name in SPLITS
    }


def _images(path: Path, name: str, images: Pixels) -> Pixels:
    import numpy as np

    fits = images.ndim == 3 or (images.ndim == 4 and images.shape[3] == 3)
    if images.dtype != np.uint8 or not fits or not images.size:
        raise DataError(
            f"{path}: {name}_images is {images.dtype} of shape {images.shape}, but images are uint8 (N, H, W) "
            "or (N, H, W, 3)"
        )
    return images


def _labels(path: Path, name: str, labels: Labels, count: int, classes: int) -> Labels:
    import numpy as np

    if labels.ndim == 2 and labels.shape[1] > 1:
        raise DataError(
            f"{path}: {name}_labels gives an image {labels.shape[1]} labels at once, and classification here "
            "takes one"
        )
    if labels.dtype.kind not in "iu" or labels.shape not in ((count, 1), (count,)):
        raise DataError(
            f"{path}: {name}_labels is {labels.dtype} of shape {labels.shape}, but {count} whole numbers were "
            "expected"
        )
    flat = labels.reshape(count).astype(np.int64)
    if not 0 <= int(flat.min()) <= int(flat.max()) < classes:
        raise DataError(
            f"{path}: {name}_labels run from {int(flat.min())} to {int(flat.max())}, but this set has classes "
            f"0 to {classes - 1}"
        )
    return flat
