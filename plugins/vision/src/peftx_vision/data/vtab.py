"""VTAB-1k in the layout of folders and lists: nineteen tasks of 1,000 training images each.

Protocol: X. Zhai et al., arXiv:1910.04867. A task is a folder of images with four lists of lines ``path label``,
paths relative to the folder: ``train800.txt``, ``val200.txt``, both together as ``train800val200.txt``, and
``test.txt``. In that form the tasks were passed on by Y. Zhang et al., "Neural Prompt Search", arXiv:2206.04673.

Two ways to use it, never mixed: ``split="tune"`` trains on the 800 images and validates on the 200, to choose
hyperparameters; ``split="final"`` trains on all 1,000 and scores the test set, once. `final` has no validation
split, since its images are trained on: the last epoch is kept, and none is chosen by the test score.
"""

from __future__ import annotations

from pathlib import Path

from peftx.data.contract import DataContext, Dataset, Published
from peftx.data.copies import compare_copy
from peftx.errors import DataError, near_matches
from peftx_vision.config.data import VtabConfig
from peftx_vision.data.listed import Listed, check_apart, find_folder, read_lines, splits_of
from peftx_vision.vtab import TASKS

__all__ = ["LISTS", "load", "locate"]

_PAPER = "https://arxiv.org/abs/1910.04867"
#: The lists of each way to use a task, by split.
LISTS = {
    "tune": {"train": "train800.txt", "val": "val200.txt"},
    "final": {"train": "train800val200.txt", "test": "test.txt"},
}
_COUNTS = {"tune": {"train": 800, "val": 200}, "final": {"train": 1000}}


def locate(config: VtabConfig, ctx: DataContext) -> None:
    """Find the folder of the task and read its lists; opens no image.

    Raises DataError for an unknown task, a folder or list that is not there, and a list that is wrong.
    """
    _parts(config, ctx)


def load(config: VtabConfig, ctx: DataContext) -> Dataset:
    """Return the task: RGB images and class indices, with the splits of `config.split`.

    Classes are called by their numbers, as the lists have no names. Raises DataError for an image that is missing
    or no image, and what `locate` raises.
    """
    folder, parts = _parts(config, ctx)
    task = TASKS[config.path]
    classes = tuple(str(number) for number in range(task.classes))
    splits, fingerprint = splits_of(folder, parts, classes, config.limit_train, config.split_seed)
    published = Published(counts=_COUNTS[config.split], classes=classes, source=_PAPER)
    held = {name: len(part.files) for name, part in parts.items()}
    return Dataset(
        name=f"vision.vtab:{config.path}",
        splits=splits,
        classes=classes,
        fingerprint=fingerprint,
        card={
            "source": _PAPER,
            "licence": "that of each data set",
            "synthetic": False,
            "verified": False,
            "note": f"VTAB-1k, group {task.group}; "
            + ", ".join(f"{name} is {LISTS[config.split][name]}" for name in splits),
        },
        published=published,
        copy=compare_copy(published, held, None),
    )


def _parts(config: VtabConfig, ctx: DataContext) -> tuple[Path, dict[str, Listed]]:
    if config.path not in TASKS:
        hint = near_matches(config.path, TASKS) or f" Tasks are {', '.join(TASKS)}."
        raise DataError(f"VTAB-1k has no task {config.path!r}.{hint}")
    lists = LISTS[config.split]
    folder = find_folder(
        ctx, f"vision.vtab:{config.path}", (config.path,), ("vtab-1k", "vtab"), lists["train"]
    )
    parts = {name: read_lines(folder / file, TASKS[config.path].classes) for name, file in lists.items()}
    check_apart(parts)
    return folder, parts
