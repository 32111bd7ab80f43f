"""A folder of images sorted into one folder for each class, with official splits or without.

``PATH/train/<class>/*.jpg`` and ``PATH/val/<class>/*.jpg`` (also ``valid``, ``validation``), with or without
``test``, is the layout ImageNet made common and torchvision's `ImageFolder` reads: classes sorted by name,
files found at any depth. ``PATH/<class>/*.jpg`` alone is split by `split_seed`. What a source holds out is
never touched; what is missing is drawn from `train`: validation always, a test set only when the folder has
no splits at all.

Hidden files and folders are passed over. All images are opened late; a header is looked at when the folder is
read, so that a text file named .jpg is found before training begins.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from peftx.data.contract import DataContext, Dataset
from peftx.data.files import find_folder
from peftx.data.splits import limit, split
from peftx.errors import DataError
from peftx_vision.config.data import ImageFolderConfig
from peftx_vision.data.files import FileSplit, digest, heads
from peftx_vision.data.images import EXTENSIONS

__all__ = ["load", "locate"]

_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True, slots=True)
class _Part:
    """The images of one folder of class folders. `files`: paths relative to the data set; `labels` beside
    them."""

    classes: tuple[str, ...]
    files: tuple[str, ...]
    labels: tuple[int, ...]

    def take(self, rows: Sequence[int]) -> _Part:
        """Some of the images."""
        files = tuple(self.files[row] for row in rows)
        return _Part(self.classes, files, tuple(self.labels[row] for row in rows))


def locate(config: ImageFolderConfig, ctx: DataContext) -> None:
    """Look at the folder's structure; DataError when it does not hold a data set. Opens no image."""
    _parts(_root(config, ctx))


def load(config: ImageFolderConfig, ctx: DataContext) -> Dataset:
    """Return the data set: RGB images and class indices.

    Raises DataError when the folder is missing, empty, has one class or a class too small to split, when its
    splits disagree about the classes, or when a file is no image.
    """
    root = _root(config, ctx)
    parts = _parts(root)
    known = heads(root, [file for part in parts.values() for file in part.files])
    official = sorted(parts)
    train = parts["train"]
    if "val" not in parts:
        _check_sizes(root, train, held_out=1 if len(parts) > 1 else 2)
        fractions = (config.val_fraction,) if len(parts) > 1 else (config.test_fraction, config.val_fraction)
        *held, rest = split(train.labels, fractions, config.split_seed, train.classes)
        names = ("val",) if len(parts) > 1 else ("test", "val")
        parts |= {name: train.take(rows.tolist()) for name, rows in zip(names, held, strict=True)}
        train = train.take(rest.tolist())
    parts["train"] = train.take(limit(train.labels, config.limit_train, config.split_seed).tolist())
    splits: dict[str, FileSplit] = {
        name: FileSplit(root, parts[name].files, parts[name].labels)
        for name in ("train", "val", "test")
        if name in parts
    }
    return Dataset(
        name=f"vision.imagefolder:{config.path}",
        splits=splits,
        classes=train.classes,
        fingerprint=digest(splits, train.classes, known),
        card={
            "source": str(root),
            "licence": "the folder's own",
            "synthetic": False,
            "verified": True,
            "note": _note(official, splits),
        },
    )


def _note(official: Sequence[str], splits: Mapping[str, FileSplit]) -> str:
    drawn = " and ".join(name for name in splits if name not in official)
    if len(official) == 1 and "test" in splits:
        return f"no splits of its own: {drawn} are drawn by split_seed"
    kept = ", ".join(name for name in splits if name in official)
    return f"{kept} as in the folder" + (f"; {drawn} drawn from train by split_seed" if drawn else "")


def _root(config: ImageFolderConfig, ctx: DataContext) -> Path:
    return find_folder(config.path, ctx.checked_root(), "folder of class folders")


def _parts(root: Path) -> dict[str, _Part]:
    """The splits the folder has of its own; ``train`` alone when it has none."""
    named: dict[str, str] = {}
    folders = _folders(root)
    for name in folders:
        part = _SPLIT_NAMES.get(name.lower())
        if part and not _holds_classes(root / name):
            continue
        if part in named:
            raise DataError(f"{root} has two folders for {part}: {named[part]} and {name}; keep one")
        if part:
            named[part] = name
    if not named:
        if folders and all(name.lower() in _SPLIT_NAMES for name in folders):
            _classes(root, folders[0])  # splits without class folders: its error says so
        return {"train": _classes(root, "")}
    if "train" not in named:
        name = next(iter(named.values()))
        raise DataError(
            f"{root} has a folder {name} but no folder train; bring train, or class folders alone"
        )
    parts = {part: _classes(root, name) for part, name in named.items()}
    expected = parts["train"].classes
    for part, found in parts.items():
        missing = sorted(set(expected) - set(found.classes))
        extra = sorted(set(found.classes) - set(expected))
        if missing or extra:
            what = f"no class {missing[0]!r}" if missing else f"a class {extra[0]!r}"
            other = "train has it" if missing else "train has none"
            raise DataError(
                f"{root / named[part]} has {what} while {other}: both must have the same class folders "
                f"({len(found.classes)} in {named[part]}, {len(expected)} in {named['train']})"
            )
    return parts


def _holds_classes(folder: Path) -> bool:
    """Say whether a folder called like a split is one: a class may be called "train", but it holds images
    itself."""
    with _scan(folder) as entries:
        loose = any(entry.is_file() and entry.name.lower().endswith(EXTENSIONS) for entry in entries)
    return not loose and bool(_folders(folder))


def _classes(root: Path, below: str) -> _Part:
    """Read one folder of class folders; DataError when it holds fewer than two classes or an empty one."""
    folder = root / below
    classes = tuple(_folders(folder))
    if not classes:
        loose = len(_images(folder))
        held = f"{loose} images but no class folders" if loose else "no class folders"
        raise DataError(f"{folder} holds {held}; put the images of each class into a folder of its own")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images(folder / name)
        if not found:
            raise DataError(
                f"the class folder {folder / name} holds no image ({', '.join(EXTENSIONS)}): "
                "fill or remove it"
            )
        files += [(Path(below) / name / file).as_posix() for file in found]
        labels += [label] * len(found)
    if len(classes) == 1:
        raise DataError(
            f"{folder} holds one class only, {classes[0]!r}; a classifier needs at least two class folders"
        )
    return _Part(classes, tuple(files), tuple(labels))


def _check_sizes(root: Path, part: _Part, held_out: int) -> None:
    """Raise DataError when a class has too few images to be split."""
    counts = Counter(part.labels)
    for label, name in enumerate(part.classes):
        count = counts[label]
        if count <= held_out:
            images = "a single image" if count == 1 else f"only {count} images"
            raise DataError(
                f"class {name!r} in {root} has {images}; splitting needs at least {held_out + 1} "
                f"(or bring folders train, val and test)"
            )


def _folders(folder: Path) -> list[str]:
    """Names of the visible folders in a folder, sorted the same everywhere."""
    with _scan(folder) as entries:
        return sorted(entry.name for entry in entries if _visible(entry.name) and entry.is_dir())


def _images(folder: Path) -> list[str]:
    """Paths of the images at any depth of a folder, relative to it and sorted; links to folders are not
    followed."""
    found: list[str] = []
    pending = [""]
    while pending:
        below = pending.pop()
        with _scan(folder / below) as entries:
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if not _visible(entry.name):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif entry.name.lower().endswith(EXTENSIONS) and entry.is_file():
                    found.append(name)
    return sorted(found)


def _scan(folder: Path) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder} ({error.strerror or error})") from error


def _visible(name: str) -> bool:
    # macOS leaves __MACOSX beside what it unzips, full of ._name.jpg that are no images
    return not name.startswith(".") and name != "__MACOSX"
