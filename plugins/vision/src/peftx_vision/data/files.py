"""Images in files of their own: looked at when a data set is read, decoded when a sample is asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftx.data.contract import Split
from peftx.errors import DataError
from peftx_vision.data.images import open_image, signature

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FileSplit", "digest", "heads"]

_HEAD = 64  # bytes of a file that are looked at, enough for every signature


class FileSplit(Split["tuple[Image.Image, int]"]):
    """Images that are decoded when asked for."""

    def __init__(self, root: Path, files: Sequence[str], labels: Sequence[int]) -> None:
        self.root = root
        self.files = tuple(files)
        self._labels = tuple(labels)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return open_image(self.root / self.files[index]), self._labels[index]

    @property
    def labels(self) -> Sequence[int]:
        return self._labels


def heads(root: Path, files: Iterable[str]) -> dict[str, bytes]:
    """Return size and first bytes of every file, by its path below `root`; DataError when one is not an image."""
    found: dict[str, bytes] = {}
    for file in files:
        path = root / file
        try:
            with path.open("rb") as handle:
                head = handle.read(_HEAD)
                size = handle.seek(0, os.SEEK_END)
        except OSError as error:
            raise DataError(f"cannot read the image {path} ({error.strerror or error})") from error
        if not signature(head):
            what = "is empty" if not size else "is not an image of a known kind"
            raise DataError(f"{path} {what}; remove or replace it")
        found[file] = size.to_bytes(8, "little") + head
    return found


def digest(splits: Mapping[str, FileSplit], classes: Sequence[str], known: Mapping[str, bytes]) -> str:
    """Digest over classes, splits, relative paths, sizes and first bytes (`heads`); pixels are not read."""
    total = hashlib.sha256("\n".join(classes).encode())
    for name, part in splits.items():
        total.update(f"\n{name}\n".encode())
        for file, label in zip(part.files, part.labels, strict=True):
            total.update(f"{file}\t{label}\t".encode() + known[file])
    return total.hexdigest()
