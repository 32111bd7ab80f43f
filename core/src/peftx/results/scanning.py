"""Where the runs are: one walk over a folder of runs, and a stamp of each run that says whether it changed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from peftx.runs import folder as files

__all__ = ["Scan", "Skipped", "scan", "stamp_of"]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A folder that could not be used, and why."""

    folder: str
    cause: str


@dataclass(slots=True)
class Scan:
    """What a walk found: run folders, relative to where it began (``.`` for that folder itself), with their stamps."""

    runs: dict[str, str] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def scan(root: Path, below: Sequence[Path] = ()) -> Scan:
    """Find every run below `root`, or below some folders of it: a folder with a record.json or a config.toml. Nothing
    inside a run is looked at.

    Folders whose name begins with a dot are left out. Links to folders are followed after everything else, and no
    folder is entered twice, so a loop ends and a run with two names is listed under the one that is no link.
    """
    found = Scan()
    seen: set[tuple[int, int]] = set()
    waiting, links = deque(map(os.fspath, below or (root,))), deque[str]()
    while waiting or links:
        path = waiting.popleft() if waiting else links.popleft()
        name = Path(os.path.relpath(path, root)).as_posix()
        try:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            if identity in seen:
                continue
            seen.add(identity)
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
            if any(entry.name in (files.RECORD, files.CONFIG) for entry in entries):
                name.encode()  # a name that is no text can be neither stored nor printed
                found.runs[name] = stamp_of(Path(path))
                continue
            for entry in _folders(entries):
                (links if entry.is_symlink() else waiting).append(entry.path)
        except UnicodeEncodeError:
            found.skipped.append(Skipped(ascii(name), "the folder's name is not valid UTF-8: rename it"))
        except OSError as error:
            found.skipped.append(Skipped(ascii(name)[1:-1], f"cannot be read: {error.strerror or error}"))
    return found


def stamp_of(folder: Path) -> str:
    """Text that differs as soon as the record or the configuration was written again: times, sizes, file numbers."""
    parts = []
    for name in (files.RECORD, files.CONFIG):
        try:
            status = os.stat(folder / name)
            parts.append(f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}")
        except OSError:
            parts.append("")
    return "/".join(parts)


def _folders(entries: list[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    for entry in entries:
        if entry.name.startswith("."):
            continue
        try:
            if entry.is_dir():
                yield entry
        except OSError:  # a link whose target cannot be asked
            continue
