"""VTAB-1k: its nineteen tasks in three groups, and the two means that are both called its average.

X. Zhai et al., "A Large-scale Study of Representation Learning with the Visual Task Adaptation Benchmark",
arXiv:1910.04867. Tasks bear the names of the folders in which they are commonly passed on. No torch here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from peftx.errors import DataError, near_matches

__all__ = ["GROUPS", "TASKS", "Means", "VtabTask", "group_means", "means"]

#: The groups, in the order of the tables.
GROUPS = ("natural", "specialised", "structured")


@dataclass(frozen=True, slots=True)
class VtabTask:
    """One task: its group and its number of classes."""

    group: str
    classes: int


_CLASSES = {
    "natural": {
        "cifar": 100,
        "caltech101": 102,
        "dtd": 47,
        "oxford_flowers102": 102,
        "oxford_iiit_pet": 37,
        "svhn": 10,
        "sun397": 397,
    },
    "specialised": {"patch_camelyon": 2, "eurosat": 10, "resisc45": 45, "diabetic_retinopathy": 5},
    "structured": {
        "clevr_count": 8,
        "clevr_dist": 6,
        "dmlab": 6,
        "kitti": 4,
        "dsprites_loc": 16,
        "dsprites_ori": 16,
        "smallnorb_azi": 18,
        "smallnorb_ele": 9,
    },
}

#: Every task by name, in the order of the tables.
TASKS: dict[str, VtabTask] = {
    name: VtabTask(group, classes) for group, held in _CLASSES.items() for name, classes in held.items()
}


class Means(NamedTuple):
    """The two averages. `group`: the mean of the three group means, which most tables print; `task`: the mean of
    the nineteen tasks, which some print under the same name and which is about two points lower."""

    group: float
    task: float


def means(scores: Mapping[str, float]) -> Means:
    """Return both averages of the scores of all nineteen tasks, in whatever unit they are.

        group = 1/3 sum_G 1/|G| sum_{t in G} s_t        task = 1/19 sum_t s_t

    Raises:
        DataError: a task is missing, one is unknown, or a score is no finite number. An average of fewer tasks
            compares with nothing.
    """
    of_groups = group_means(scores)
    return Means(
        math.fsum(of_groups.values()) / len(GROUPS), math.fsum(scores[name] for name in TASKS) / len(TASKS)
    )


def group_means(scores: Mapping[str, float]) -> dict[str, float]:
    """Return the mean of each group, by its name. Raises DataError as `means` does."""
    strange = next((name for name in scores if name not in TASKS), None)
    if strange is not None:
        raise DataError(f"VTAB-1k has no task {strange!r}.{near_matches(strange, TASKS)}")
    absent = [name for name in TASKS if name not in scores]
    if absent:
        raise DataError(f"the averages of VTAB-1k take all {len(TASKS)} tasks; missing: {', '.join(absent)}")
    broken = next((name for name in TASKS if not math.isfinite(scores[name])), None)
    if broken is not None:
        raise DataError(f"the score of {broken} is {scores[broken]}, not a finite number")
    return {group: math.fsum(scores[name] for name in held) / len(held) for group, held in _CLASSES.items()}
