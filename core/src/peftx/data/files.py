"""Files that somebody brings: where a path leads, gzip or not, and no more out of them than there may be.

A compressed file of a few kilobytes may unpack to anything, and a line of text may have no end. So whoever reads
strangers' files reads them by `lines_of` or `bounded_lines`, or a stated number of bytes of `opened`, and does so
inside `reading`, which makes one sentence of a damaged file.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from peftx.errors import DataError

__all__ = [
    "MOST_LINE",
    "MOST_UNPACKED",
    "bounded_lines",
    "find_file",
    "find_folder",
    "is_packed",
    "lines_of",
    "opened",
    "reading",
]

#: Bytes that a compressed text may unpack to, and that a line of any may have; the longest series of public archives
#: stand on lines of some fifty million.
MOST_UNPACKED = 8 << 30
MOST_LINE = 1 << 28


def find_file(path: Path, root: Path | None, kind: str) -> Path:
    """Return a file, which may be given relative to the data root; `kind` says in errors what was expected.

    Raises:
        DataError: there is none, or it is a folder.
    """
    path = _below(path, root)
    if not path.exists():
        raise DataError(f"no such file: {path}; a {kind} was expected")
    if path.is_dir():
        raise DataError(f"{path} is a folder, but a {kind} was expected")
    return path


def find_folder(path: Path, root: Path | None, kind: str) -> Path:
    """Return a folder, which may be given relative to the data root; `kind` says in errors what was expected.

    Raises:
        DataError: there is none, or it is a file.
    """
    path = _below(path, root)
    if not path.exists():
        raise DataError(f"no such folder: {path}; a {kind} was expected")
    if not path.is_dir():
        raise DataError(f"{path} is a file, but a {kind} was expected")
    return path


def is_packed(path: Path) -> bool:
    """Whether a file is compressed by gzip, as its name says."""
    return path.suffix.lower() == ".gz"


def opened(path: Path) -> IO[bytes]:
    """Open a file for its content, compressed by gzip or not. What comes out has no bound: read a stated number."""
    return gzip.open(path) if is_packed(path) else path.open("rb")  # type: ignore[return-value]


@contextmanager
def lines_of(path: Path) -> Iterator[Iterator[bytes]]:
    """The lines of a text file, compressed by gzip or not, by `bounded_lines`."""
    with opened(path) as stream:
        yield bounded_lines(stream, path, unpacked=is_packed(path))


def bounded_lines(stream: IO[bytes], path: Path, *, unpacked: bool = True) -> Iterator[bytes]:
    """Lines with their ends, as they are asked for; `unpacked`: their sum is bounded, too.

    Raises:
        DataError: by the iterator, where a line is longer than `MOST_LINE` or all are more than `MOST_UNPACKED`.
    """
    left, number = MOST_UNPACKED, 0
    while line := stream.readline(MOST_LINE + 1):
        number += 1
        if len(line) > MOST_LINE:
            raise DataError(
                f"{path}: line {number} has more than {MOST_LINE:,} bytes: it is damaged, or no text file"
            )
        left -= len(line)
        if unpacked and left < 0:
            raise DataError(
                f"{path} unpacks to more than {MOST_UNPACKED:,} bytes: it is damaged, or no file of its kind; unpack "
                "it yourself if it is all right"
            )
        yield line


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Make one DataError of what reading a damaged, cut or closed file raises."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:
        cause = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"cannot read {path} ({cause}): it is damaged or not open to you; get it again"
        ) from error


def _below(path: Path, root: Path | None) -> Path:
    path = path.expanduser()
    if root is not None and not path.is_absolute() and not path.exists():
        path = root / path
    return path
