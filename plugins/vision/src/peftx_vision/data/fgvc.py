"""FGVC: five sets of fine-grained classes with the splits of VPT.

M. Jia et al., "Visual Prompt Tuning", arXiv:2203.12119. Beside the images of a set stand ``train.json``,
``val.json`` and ``test.json``, objects of ``{path: class}`` with whole numbers for classes. Where a set has no
official validation set, VPT holds about a tenth of train out. Training uses ``train.json`` only.

Class numbers need not begin at 0 nor be without gaps: the sorted numbers of ``train.json`` are the classes, and
the same are used for all three splits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from peftx.data.contract import SPLITS, DataContext, Dataset, Published
from peftx.data.copies import compare_copy
from peftx.errors import DataError, near_matches
from peftx_vision.config.data import FgvcConfig
from peftx_vision.data.listed import Listed, check_apart, checked_path, find_folder, read_text, splits_of

__all__ = ["SETS", "FgvcSet", "load", "locate"]

_PAPER = "https://arxiv.org/abs/2203.12119"


@dataclass(frozen=True, slots=True)
class FgvcSet:
    """One set. `folders`: names its folder may have; `images`: where below it the paths of the splits start;
    `title`: the set that it is; `counts`: images in train, val and test, as VPT states them (from secondary sources;
    train and val together, and test, are the official counts of each set)."""

    title: str
    classes: int
    counts: tuple[int, int, int]
    folders: tuple[str, ...]
    images: str = ""


#: The five sets by name.
SETS = {
    "cub": FgvcSet("CUB-200-2011", 200, (5_394, 600, 5_794), ("cub", "CUB_200_2011"), "images"),
    "nabirds": FgvcSet("NABirds", 555, (21_536, 2_393, 24_633), ("nabirds",), "images"),
    "flowers": FgvcSet("Oxford Flowers", 102, (1_020, 1_020, 6_149), ("flowers", "OxfordFlowers")),
    "dogs": FgvcSet("Stanford Dogs", 120, (10_800, 1_200, 8_580), ("dogs", "StanfordDogs"), "Images"),
    "cars": FgvcSet("Stanford Cars", 196, (7_329, 815, 8_041), ("cars", "StanfordCars")),
}


def locate(config: FgvcConfig, ctx: DataContext) -> None:
    """Find the folder of the set and read its splits; opens no image.

    Raises DataError for an unknown set, a folder or file that is not there, and splits that are wrong.
    """
    _parts(config, ctx)


def load(config: FgvcConfig, ctx: DataContext) -> Dataset:
    """Return the set: RGB images and class indices; classes are called by their numbers.

    Raises DataError for an image that is missing or no image, and what `locate` raises.
    """
    folder, parts, classes = _parts(config, ctx)
    one = SETS[config.path]
    splits, fingerprint = splits_of(
        folder / one.images, parts, classes, config.limit_train, config.split_seed
    )
    published = Published(counts=dict(zip(SPLITS, one.counts, strict=True)), source=_PAPER)
    held = {name: len(part.files) for name, part in parts.items()}
    return Dataset(
        name=f"vision.fgvc:{config.path}",
        splits=splits,
        classes=classes,
        fingerprint=fingerprint,
        card={
            "source": _PAPER,
            "licence": "that of each data set",
            "synthetic": False,
            "verified": False,
            "note": f"{one.title}; train, val and test as in the JSON files",
        },
        published=published,
        copy=compare_copy(published, held, None),
    )


def _parts(config: FgvcConfig, ctx: DataContext) -> tuple[Path, dict[str, Listed], tuple[str, ...]]:
    if config.path not in SETS:
        hint = near_matches(config.path, SETS) or f" Sets are {', '.join(SETS)}."
        raise DataError(f"FGVC has no set {config.path!r}.{hint}")
    one = SETS[config.path]
    folder = find_folder(ctx, f"vision.fgvc:{config.path}", one.folders, ("fgvc", "FGVC"), "train.json")
    found = {name: _read(folder / f"{name}.json") for name in ("train", "val", "test")}
    numbers = sorted(set(found["train"].values()))
    if len(numbers) != one.classes:
        raise DataError(
            f"{folder / 'train.json'} has images of {len(numbers)} classes, but {one.title} has {one.classes}"
        )
    index = {number: place for place, number in enumerate(numbers)}
    parts: dict[str, Listed] = {}
    for name, labelled in found.items():
        path = folder / f"{name}.json"
        strange = next((file for file, number in labelled.items() if number not in index), None)
        if strange is not None:
            raise DataError(
                f"{path}: the class {labelled[strange]} of {strange} has no image in train.json, "
                f"whose classes are {numbers[0]} .. {numbers[-1]}"
            )
        parts[name] = Listed(path, tuple(labelled), tuple(index[number] for number in labelled.values()))
    check_apart(parts)
    return folder, parts, tuple(str(number) for number in numbers)


def _read(path: Path) -> dict[str, int]:
    """Return the class number of each path; DataError when the file is of another form or empty."""
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: expected an object of paths and classes, got {type(found).__name__}")
    for name, number in found.items():
        if not isinstance(number, int) or isinstance(number, bool):
            raise DataError(f"{path}: the class of {name} is {str(number)[:40]!r}, expected a whole number")
    if not found:
        raise DataError(f"{path} lists no image")
    return {checked_path(name, str(path)): number for name, number in found.items()}
