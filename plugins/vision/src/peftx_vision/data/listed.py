"""Images named by a list, and the ways such a list can be wrong: shared by all loaders of listed images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from peftx.data.contract import DataContext
from peftx.data.splits import limit, split
from peftx.errors import DataError
from peftx_vision.data.files import FileSplit, digest, heads

__all__ = [
    "Listed",
    "check_apart",
    "checked_path",
    "find_folder",
    "hold_out",
    "read_lines",
    "read_text",
    "splits_of",
]

_LABEL = re.compile("-?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Listed:
    """One split as its list names it. `files`: paths relative to the folder of images; `labels` beside them."""

    source: Path
    files: tuple[str, ...]
    labels: tuple[int, ...]


def find_folder(ctx: DataContext, what: str, names: Sequence[str], below: Sequence[str], mark: str) -> Path:
    """Return the first folder that holds the file `mark`.

    Looked for under each of `names` in the data root, in its folders `below`, and in the cache; the data root may
    also be the folder itself. Raises DataError, naming where to put it, when there is none.
    """
    cache = ctx.cache / what.partition(":")[0]
    places = [cache / name for name in names]
    root = ctx.checked_root()
    if root is not None:
        places = [root / part / name for part in ("", *below) for name in names] + places
        if root.name in names:
            places.insert(0, root)
    for place in places:
        if (place / mark).is_file():
            return place
    begun = next((place for place in places if place.is_dir()), None)
    if begun is not None:
        raise DataError(f"{what}: {begun} has no {mark}; bring the data set with its lists")
    raise DataError(
        f"{what} is not there, and it cannot be downloaded: put its folder {names[0]} (with {mark}) into "
        f"{root or cache}" + ("" if root else ", or name the folder above it with --data-root")
    )


def read_text(path: Path) -> str:
    """Return the text of a list; DataError when it cannot be read."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path.parent} has no {path.name}; bring the data set with its lists") from error
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise DataError(f"cannot read the list {path} ({cause})") from error


def read_lines(path: Path, classes: int) -> Listed:
    """Read a list of lines ``path label``, labels ``0 .. classes - 1``; empty lines are passed over.

    Raises DataError, naming the line, for one of another form, a label out of range or a path that leads outside
    the folder, and for a list without images.
    """
    files: list[str] = []
    labels: list[int] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        words = line.rsplit(maxsplit=1)
        if len(words) < 2 or not _LABEL.fullmatch(words[1]):
            raise DataError(f"{where}: expected a path and a label, got {line.strip()[:80]!r}")
        name, label = words
        if not 0 <= int(label) < classes:
            raise DataError(f"{where}: the label {label} is outside 0 .. {classes - 1}")
        files.append(checked_path(name.strip(), where))
        labels.append(int(label))
    if not files:
        raise DataError(f"{path} lists no image")
    return Listed(path, tuple(files), tuple(labels))


def checked_path(name: str, where: str) -> str:
    """Return the path in one spelling; DataError when it leads outside the folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise DataError(f"{where}: the path {name!r} leads outside the folder of the data set")
    return str(path)


def check_apart(parts: Mapping[str, Listed]) -> None:
    """Raise DataError when an image of one split is in another as well, and such a score would be too good, or stands
    twice in one with two labels."""
    owner: dict[str, tuple[str, int]] = {}
    for name, part in parts.items():
        for file, label in zip(part.files, part.labels, strict=True):
            first, other = owner.setdefault(file, (name, label))
            if first != name:
                raise DataError(
                    f"{part.source} lists {file}, which {parts[first].source.name} lists too: an image may be in "
                    f"{name} or in {first}, not in both"
                )
            if other != label:
                raise DataError(
                    f"{part.source} lists {file} twice, with the labels {other} and {label} (from 0); keep one"
                )


def hold_out(
    part: Listed, fractions: Mapping[str, float], seed: int, classes: Sequence[str]
) -> dict[str, Listed]:
    """Draw splits of the given fractions from `part` and return them with what is left, called `train`.

    Raises DataError when that leaves a class without an image to train on.
    """
    drawn = split(part.labels, tuple(fractions.values()), seed, classes)
    return {
        name: Listed(
            part.source, tuple(part.files[row] for row in rows), tuple(part.labels[row] for row in rows)
        )
        for name, rows in zip((*fractions, "train"), drawn, strict=True)
    }


def splits_of(
    root: Path, parts: Mapping[str, Listed], classes: Sequence[str], count: int | None, seed: int
) -> tuple[dict[str, FileSplit], str]:
    """Return the splits, `train` limited to `count` images, and the fingerprint.

    `root`: the folder that the paths of the lists start from. Raises DataError for an image that is missing or is
    no image.
    """
    known: dict[str, bytes] = {}
    splits: dict[str, FileSplit] = {}
    for name, part in parts.items():
        absent = next((file for file in part.files if not (root / file).is_file()), None)
        if absent is not None:
            raise DataError(f"{part.source} lists {absent}, but there is no such image in {root}")
        known |= heads(root, part.files)
        rows = limit(part.labels, count if name == "train" else None, seed).tolist()
        splits[name] = FileSplit(root, [part.files[row] for row in rows], [part.labels[row] for row in rows])
    return splits, digest(splits, classes, known)
