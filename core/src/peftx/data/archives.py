"""Reading tar and zip archives from strangers: nothing is ever written outside the folder it belongs in.

Members that are links, devices, absolute or climb out with ``..`` are refused, and so are archives whose
contents are absurdly many or large: an archive is trusted for its bytes, never for its paths. `tarfile`'s own
``filter="data"`` would do for tars of current Pythons; here one short list of rules holds for tars and zips
alike and names the member.
"""

from __future__ import annotations

import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from peftx.data.cache import whole_folder
from peftx.errors import DataError

__all__ = ["extract"]

_CHUNK = 1 << 20
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    EOFError,
    OSError,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
)
Member = tuple[str, int, Callable[[], IO[bytes]]]  # name, stated size, how to open it


def extract(
    archive: Path,
    folder: Path,
    *,
    wanted: Callable[[str], bool] | None = None,
    most_bytes: int = 4 << 30,
    most_members: int = 1_000_000,
) -> Path:
    """Extract the regular files of `archive` (tar, possibly compressed, or zip) into `folder`, whole or not
    at all.

    `wanted` picks members by name; the rest is checked all the same. `folder` must not exist yet; it appears
    once everything is written. Returns `folder`. Raises DataError when the archive is damaged, holds a member
    that does not belong in a data set, or exceeds `most_bytes` uncompressed or `most_members`.
    """
    with whole_folder(folder) as temporary, _opened(archive) as members:
        budget = most_bytes
        for number, (name, size, opener) in enumerate(members):
            if number >= most_members or size > budget:
                raise DataError(_too_much(archive, most_bytes, most_members))
            if wanted is not None and not wanted(name):
                continue
            target = temporary.joinpath(*PurePosixPath(name).parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            with opener() as source, target.open("wb") as sink:
                # a zip may lie about sizes, so what comes out is counted, not what was stated
                while chunk := source.read(_CHUNK):
                    budget -= len(chunk)
                    if budget < 0:
                        raise DataError(_too_much(archive, most_bytes, most_members))
                    sink.write(chunk)
    return folder


def _too_much(archive: Path, most_bytes: int, most_members: int) -> str:
    return (
        f"{archive} unpacks to more than {most_bytes:,} bytes or {most_members:,} files, which this data set "
        "never does; get it again from its source"
    )


def _checked_name(archive: Path, name: str) -> str:
    """Return the member name without a leading ``./``; raise DataError when it leads outside the folder."""
    path = PurePosixPath(name)
    climbs = path.is_absolute() or ".." in path.parts
    # backslashes and drive letters mean a path on Windows, and nothing good elsewhere
    if climbs or not path.parts or re.search(r"[\\\x00]|^[A-Za-z]:", name):
        raise DataError(
            f"{archive} holds the member {name!r}, which leads outside its folder; nothing was unpacked"
        )
    return str(path)


@contextmanager
def _opened(archive: Path) -> Iterator[Iterator[Member]]:
    """Open a tar or zip and give its regular members; every failure to read it becomes one DataError."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                yield _zip_members(archive, zipped)
        else:
            with tarfile.open(archive) as tar:
                yield _tar_members(archive, tar)
    except FileNotFoundError as error:
        raise DataError(f"no such archive: {archive}") from error
    except _BROKEN as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{archive} is damaged or not an archive ({cause}); delete it and get it again from its source"
        ) from error


def _tar_members(archive: Path, tar: tarfile.TarFile) -> Iterator[Member]:
    for info in tar:
        if info.isdir():
            continue
        if not info.isreg():
            raise DataError(
                f"{archive} holds {info.name!r}, a link or device; data sets hold plain files only"
            )
        name = _checked_name(archive, info.name)

        def opener(info: tarfile.TarInfo = info) -> IO[bytes]:
            stream = tar.extractfile(info)
            assert stream is not None  # regular files always have one
            return stream

        yield name, info.size, opener


def _zip_members(archive: Path, zipped: zipfile.ZipFile) -> Iterator[Member]:
    for info in zipped.infolist():
        if info.is_dir():
            continue
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
            raise DataError(
                f"{archive} holds {info.filename!r}, a link or device; data sets hold plain files only"
            )
        # ZipInfo cuts names at a null byte and rewrites the system's separator: check what was stored
        name = _checked_name(archive, info.orig_filename)

        def opener(info: zipfile.ZipInfo = info) -> IO[bytes]:
            if info.flag_bits & 1:
                raise DataError(f"{archive} is encrypted; data sets are read without a password")
            return zipped.open(info)

        yield name, info.file_size, opener
