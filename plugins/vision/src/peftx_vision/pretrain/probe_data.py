"""The images the probe looks at: scikit-learn's digits, and a JPEG copy of CIFAR-10 where somebody has one.

The JPEG copies are lossy: their scores compare with one another only, never with published CIFAR-10 numbers, and
they are named so wherever they are shown.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.functional import pil_to_tensor

from peftx.errors import DataError

from .canvas import SIDE

SHARED_DATA = "PEFTX_SHARED_DATA"
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_TRAIN, CIFAR_TEST = "cifar10_jpeg_train25k.tar.xz", "cifar10_jpeg_test.tar.xz"


@dataclass(frozen=True)
class Labelled:
    """Images and their classes."""

    images: Tensor  # (N, 3, 32, 32) in [0, 1]
    labels: Tensor  # (N,)

    def __getitem__(self, index: Tensor | slice) -> Labelled:
        return Labelled(self.images[index], self.labels[index])

    def __len__(self) -> int:
        return len(self.labels)


def digits() -> Labelled:
    """The 1,797 scans of scikit-learn, 8 x 8 in 17 grey levels, enlarged bilinearly."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16
    images = interpolate(small, size=(SIDE, SIDE), mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
    return Labelled(images.contiguous(), torch.from_numpy(bunch.target).long())


def find_cifar_jpeg(folder: Path | None = None) -> Path | None:
    """The folder with both archives: the one given, or the one below $PEFTX_SHARED_DATA, or None."""
    if folder is None and os.environ.get(SHARED_DATA):
        folder = Path(os.environ[SHARED_DATA]) / "vision" / "cifar10"
    if folder is None or not all((folder / name).is_file() for name in (CIFAR_TRAIN, CIFAR_TEST)):
        return None
    return folder


def cifar_jpeg(folder: Path, train_per_class: int = 1000) -> tuple[Labelled, Labelled]:
    """The first `train_per_class` training images of every class, and all test images."""
    return (
        _read_archive(folder / CIFAR_TRAIN, train_per_class),
        _read_archive(folder / CIFAR_TEST, None),
    )


def _read_archive(path: Path, per_class: int | None) -> Labelled:
    """Stream `SPLIT/CLASS/NNNN.jpg` members; nothing is unpacked to disk."""
    found: list[tuple[int, str, Tensor]] = []
    with tarfile.open(path, mode="r|xz") as archive:
        for member in archive:
            if not member.name.endswith(".jpg"):
                continue
            _, name, file_name = member.name.removeprefix("./").rsplit("/", 2)
            stream = archive.extractfile(member)
            if stream is None or name not in CIFAR_CLASSES:
                raise DataError(f"{path}: unexpected member {member.name}; expected SPLIT/CLASS/NNNN.jpg")
            image = Image.open(io.BytesIO(stream.read())).convert("RGB")
            found.append((CIFAR_CLASSES.index(name), file_name, pil_to_tensor(image)))
    found.sort(key=lambda item: item[:2])  # by name, so that the order inside the archive does not matter
    taken, count = [], Counter[int]()
    for label, _, pixels in found:
        if per_class is None or count[label] < per_class:
            count[label] += 1
            taken.append((label, pixels))
    short = [CIFAR_CLASSES[i] for i in range(len(CIFAR_CLASSES)) if count[i] < (per_class or 1)]
    if short:
        raise DataError(f"{path}: too few images of {', '.join(short)}")
    images = torch.stack([pixels for _, pixels in taken]).float() / 255
    return Labelled(images, torch.tensor([label for label, _ in taken]))
