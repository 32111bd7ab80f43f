"""All nineteen tasks of VTAB-1k and the five sets of FGVC in miniature: their folders and lists, few small images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from peftx_vision.data.fgvc import SETS
from peftx_vision.vtab import TASKS


def picture(path: Path, label: int, number: int) -> None:
    """An image whose red is its label."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (label % 256, 10 * number % 256, 99)).save(path)


def put_task(root: Path, task: str) -> None:
    """A task: eight images to train, four to validate, six to test."""
    folder, classes = root / task, min(2, TASKS[task].classes)
    lists: dict[str, list[str]] = {}
    for part, count in (("train800", 8), ("val200", 4), ("test", 6)):
        lists[part] = [f"images/{part}/{number}.png {number % classes}" for number in range(count)]
        for number, line in enumerate(lists[part]):
            picture(folder / line.split()[0], 200 * (number % classes), number)
    lists["train800val200"] = lists["train800"] + lists["val200"]
    for part, lines in lists.items():
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")


def put_set(root: Path, name: str) -> None:
    """A set: one image of each class to train, a few to validate and to test."""
    one = SETS[name]
    folder = root / one.folders[0]
    for part, count in (("train", one.classes), ("val", 4), ("test", 6)):
        labels = {f"{part}/{number}.png": number for number in range(count)}
        for file, label in labels.items():
            picture(folder / one.images / file, label, label)
        (folder / f"{part}.json").write_text(json.dumps(labels))


@pytest.fixture
def vtab(tmp_path: Path) -> Callable[..., Path]:
    """Write tasks (all of them) and return the folder above them."""

    def write(tasks: Sequence[str] = tuple(TASKS)) -> Path:
        for task in tasks:
            put_task(tmp_path / "vtab", task)
        return tmp_path / "vtab"

    return write


@pytest.fixture
def fgvc(tmp_path: Path) -> Callable[..., Path]:
    """Write sets (all of them) and return the folder above them."""

    def write(sets: Sequence[str] = tuple(SETS)) -> Path:
        for name in sets:
            put_set(tmp_path / "fgvc", name)
        return tmp_path / "fgvc"

    return write
