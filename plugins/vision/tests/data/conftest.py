"""Tiny copies of released data sets in their official layouts: a few images of every class, nothing else changed.

The red, green and blue of an image are its split, its class and its number, so that a mixed-up label is seen.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from peftx_vision.data.release import Release
from peftx_vision.data.released_classes import DTD, EUROSAT, FLOWERS102, FOOD101, PETS

#: Images of each class in each list; enough of `train` to hold some out.
COUNTS = {
    "svhn": {"train": 10, "test": 2},
    "eurosat": {"all": 5},
    "dtd": {"train": 2, "val": 1, "test": 1},
    "flowers102": {"train": 2, "val": 1, "test": 2},
    "oxford_pets": {"train": 3, "test": 1},
    "food101": {"train": 3, "test": 1},
}


def colour(split: str, label: int, number: int) -> tuple[int, int, int]:
    return 60 + 60 * ("train", "val", "test", "all").index(split), label, number


def picture(path: Path, split: str, label: int, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # PNG whatever the name says: its colours are exact, and the content of a file is what counts
    with path.open("wb") as stream:
        Image.new("RGB", (2, 2), colour(split, label, number)).save(stream, "PNG")


def each(name: str, classes: int) -> Iterator[tuple[str, int, int]]:
    for split, count in COUNTS[name].items():
        for label in range(classes):
            for number in range(count):
                yield split, label, number


def svhn(folder: Path) -> None:
    folder.mkdir(parents=True)
    for split, count in COUNTS["svhn"].items():
        labels = np.tile(np.arange(10), count)
        images = np.zeros((32, 32, 3, len(labels)), dtype=np.uint8)
        for index, label in enumerate(labels):
            images[..., index] = colour(split, int(label), index // 10)
        digits = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        savemat(folder / f"{split}_32x32.mat", {"X": images, "y": digits}, do_compression=True)


def eurosat(folder: Path) -> None:
    for split, label, number in each("eurosat", 10):
        name = EUROSAT[label]
        picture(folder / "2750" / name / f"{name}_{number + 1}.jpg", split, label, number)


def dtd(folder: Path) -> None:
    lists: dict[str, list[str]] = {}
    for split, label, number in each("dtd", 47):
        file = f"{DTD[label]}/{DTD[label]}_{split}{number}.jpg"
        picture(folder / "images" / file, split, label, number)
        lists.setdefault(f"{split}1.txt", []).append(file)
        # of the second split, what the first tests on is trained on
        lists.setdefault(f"{({'train': 'test', 'test': 'train'}).get(split, split)}2.txt", []).append(file)
    (folder / "labels").mkdir()
    for list_name, files in lists.items():
        (folder / "labels" / list_name).write_text("".join(f"{file}\n" for file in files))


def flowers102(folder: Path) -> None:
    classes: list[int] = []
    sets: dict[str, list[int]] = {"trnid": [], "valid": [], "tstid": []}
    for split, label, number in each("flowers102", len(FLOWERS102)):
        classes.append(label + 1)
        sets[{"train": "trnid", "val": "valid", "test": "tstid"}[split]].append(len(classes))
        picture(folder / "jpg" / f"image_{len(classes):05d}.jpg", split, label, number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([classes], dtype=np.uint8)})
    savemat(folder / "setid.mat", {key: np.array([ids], dtype=np.uint16) for key, ids in sets.items()})


def oxford_pets(folder: Path) -> None:
    lists: dict[str, list[str]] = {"train": [], "test": []}
    for split, label, number in each("oxford_pets", len(PETS)):
        image = f"{PETS[label]}_{number + (100 if split == 'test' else 0)}"
        picture(folder / "images" / f"{image}.jpg", split, label, number)
        lists[split].append(f"{image} {label + 1} 1 1")
    (folder / "annotations" / "trimaps").mkdir(parents=True)
    (folder / "annotations" / "trimaps" / "mask.png").write_bytes(b"not unpacked")
    (folder / "annotations" / "trainval.txt").write_text("\n".join(lists["train"]) + "\n")
    (folder / "annotations" / "test.txt").write_text("\n".join(lists["test"]) + "\n")


def food101(folder: Path) -> None:
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for split, label, number in each("food101", len(FOOD101)):
        image = f"{FOOD101[label]}/{split}{number}"
        picture(folder / "images" / f"{image}.jpg", split, label, number)
        lists[split].setdefault(FOOD101[label], []).append(image)
    (folder / "meta").mkdir()
    for split, held in lists.items():
        (folder / "meta" / f"{split}.json").write_text(json.dumps(held))


_WRITE: dict[str, Callable[[Path], None]] = {
    "svhn": svhn,
    "eurosat": eurosat,
    "dtd": dtd,
    "flowers102": flowers102,
    "oxford_pets": oxford_pets,
    "food101": food101,
}


@dataclass
class Tiny:
    """A tiny copy of one data set. `folder`: its unpacked parts, in the layout that torchvision has."""

    name: str
    module: ModuleType
    root: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def release(self) -> Release:
        return self.module.RELEASE  # type: ignore[no-any-return]

    @property
    def folder(self) -> Path:
        return self.root / self.release.folders[0]

    @property
    def classes(self) -> int:
        return len(self.release.published.classes)

    def write(self) -> Tiny:
        """Write it, and let the loader expect the checksums of its single files."""
        _WRITE[self.name](self.folder)
        self.expect(self.folder)
        return self

    def expect(self, folder: Path) -> None:
        """Let the loader expect the files of `folder` that lie there."""
        parts = {}
        for name, part in self.release.parts.items():
            path = folder / part.remote.name
            if path.is_file():
                digest = hashlib.md5(path.read_bytes()).hexdigest()
                part = replace(part, remote=replace(part.remote, checksum=f"md5:{digest}"))
            parts[name] = part
        self.monkeypatch.setattr(self.module, "RELEASE", replace(self.release, parts=parts))

    def pack(self, into: Path) -> None:
        """Put its archives and single files into a folder, and let the loader expect their checksums."""
        into.mkdir(parents=True, exist_ok=True)
        for remote in {part.remote for part in self.release.parts.values()}:
            own = [part for part in self.release.parts.values() if part.remote == remote]
            path = into / remote.name
            if not own[0].inside:
                path.write_bytes((self.folder / own[0].path).read_bytes())
            elif path.suffix == ".zip":
                with zipfile.ZipFile(path, "w") as zipped:
                    for part in own:
                        for file in sorted((self.folder / part.path).rglob("*.*")):
                            zipped.write(file, f"{part.inside}/{file.relative_to(self.folder / part.path)}")
            else:
                with tarfile.open(path, "w:gz", compresslevel=1) as tar:
                    for part in own:
                        tar.add(self.folder / part.path, part.inside)
        self.expect(into)


@pytest.fixture
def tiny(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tiny:
    """The tiny copy of the data set that the test is parametrised with, or that its file is named after."""
    name = getattr(request, "param", request.path.stem.removeprefix("test_"))
    module = importlib.import_module(f"peftx_vision.data.{name}")
    return Tiny(name, module, tmp_path / "root", monkeypatch).write()
