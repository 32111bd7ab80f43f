"""Folders and files that appear whole or not at all, and never in the place of what is there."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peftx.errors import ArtifactError

__all__ = ["new_folder", "refuse_taken"]


def refuse_taken(folder: Path) -> None:
    """Refuse to write where something is: a file, or a folder that is not empty.

    Raises:
        ArtifactError: something is there.
    """
    try:
        taken = folder.is_file() or folder.is_symlink() or (folder.is_dir() and any(folder.iterdir()))
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written to: {error.strerror or error}") from None
    if taken:
        what = "is a file" if folder.is_file() else "holds something already"
        raise ArtifactError(f"{folder} {what}, and nothing is overwritten: name a new or an empty folder")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder` to fill; it takes that name when the block ends without error.

    Raises:
        ArtifactError: something is there already, or the place cannot be written to.
    """
    folder = folder.expanduser().absolute()
    refuse_taken(folder)
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex}.part"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():  # a crash of the machine must not leave short files under the final name
                with path.open("rb+") as stream:
                    os.fsync(stream.fileno())
        if folder.is_dir():
            folder.rmdir()  # an empty one; some systems do not replace it
        temporary.replace(folder)
    except OSError as error:
        raise ArtifactError(f"{folder} cannot be written to: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
