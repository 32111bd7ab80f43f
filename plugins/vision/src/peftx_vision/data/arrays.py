"""Images held in memory as one array, and the digest of such a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from peftx.data.contract import Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Labels = NDArray[np.int64]

__all__ = ["ArraySplit", "digest"]


class ArraySplit(Split["tuple[Pixels, int]"]):
    """Images of one size. `images`: uint8, (N, height, width[, 3]); `labels`: int64, (N,)."""

    def __init__(self, images: Pixels, labels: Labels) -> None:
        self.images = images
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.images[index], int(self._labels[index])

    @property
    def labels(self) -> Labels:
        return self._labels


def digest(splits: Iterable[tuple[str, ArraySplit]], classes: Iterable[str]) -> str:
    """Hex digest (SHA-256) over names, class list, pixels and labels of the splits."""
    import numpy as np

    total = hashlib.sha256("\n".join(classes).encode())
    for name, split in splits:
        total.update(f"{name} {split.images.shape}".encode())
        total.update(np.ascontiguousarray(split.images).data)
        # byte order fixed, so that the digest is the same on every machine
        total.update(split.labels.astype("<i8").tobytes())
    return total.hexdigest()
