"""The one folder for downloads and extracted archives, and how things appear there: whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peftx.errors import DataError

__all__ = ["cache_folder", "whole_file", "whole_folder"]


def cache_folder() -> Path:
    """Return the cache folder: ``PEFTX_DATA`` when set, else ``peftx`` in the user's cache folder."""
    chosen = os.environ.get("PEFTX_DATA", "").strip()
    if chosen:
        return Path(chosen).expanduser().absolute()
    import pooch  # 0.1 s

    return Path(pooch.os_cache("peftx")).absolute()


@contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """Give a temporary path beside `final` to write to; it takes that name when the block ends without error.

    Raises DataError when the folder cannot be written.
    """
    temporary = _temporary(final, folder=False)
    try:
        yield temporary
        # a crash of the machine must not leave a short file under the final name
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Give a temporary folder beside `final` to fill; it takes that name when the block ends without error.

    When another process was faster its result stays and ours is dropped: both hold the same files.
    """
    temporary = _temporary(final, folder=True)
    try:
        yield temporary
        try:
            temporary.replace(final)
        except OSError:
            if not final.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(final: Path, *, folder: bool) -> Path:
    """Make a temporary file or folder beside `final`: on one file system, so that renaming it is atomic.

    Not `tempfile`: its 0600 would make a cache shared by a group unreadable for the others.
    """
    temporary = final.parent / f".{final.name}.{uuid.uuid4().hex}.part"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            temporary.mkdir()
        else:
            temporary.touch(exist_ok=False)
    except OSError as error:
        raise DataError(
            f"cannot write to {final.parent} ({error.strerror or error}); "
            "set PEFTX_DATA to a folder that can be written"
        ) from error
    return temporary
