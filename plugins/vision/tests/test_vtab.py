"""The table of VTAB-1k's tasks and its two averages, on published scores."""

from __future__ import annotations

import subprocess
import sys

import pytest

from peftx.errors import DataError
from peftx_vision.config.data import VtabConfig
from peftx_vision.vtab import GROUPS, TASKS, group_means, means

# scores of ViT-B/16 in the order of the tables, as the README of V-PETL Bench prints them
GPS = (
    *(81.1, 94.2, 75.8, 99.4, 91.7, 91.6, 52.4),
    *(87.9, 96.2, 86.5, 76.5),
    *(79.9, 62.6, 55.0, 82.4, 84.0, 55.4, 29.7, 46.1),
)
FULL = (
    *(68.9, 87.7, 64.3, 97.2, 86.9, 87.4, 38.8),
    *(79.7, 95.7, 84.2, 73.9),
    *(56.3, 58.6, 41.7, 65.5, 57.5, 46.7, 25.7, 29.1),
)


def board(scores: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(TASKS, scores, strict=True))


@pytest.mark.parametrize(("scores", "group", "task"), [(GPS, 77.47, 75.18), (FULL, 68.97, 65.57)])
def test_both_averages_of_published_tables(scores: tuple[float, ...], group: float, task: float) -> None:
    found = means(board(scores))
    assert (round(found.group, 2), round(found.task, 2)) == (group, task)
    # the order in which scores are given says nothing
    assert means(dict(reversed(board(scores).items()))) == found


def test_means_of_the_groups() -> None:
    found = group_means(board(FULL))
    assert {name: round(value, 2) for name, value in found.items()} == {
        "natural": 75.89,
        "specialised": 83.38,
        "structured": 47.64,
    }


def test_the_tasks() -> None:
    assert tuple(dict.fromkeys(task.group for task in TASKS.values())) == GROUPS
    assert [sum(task.group == group for task in TASKS.values()) for group in GROUPS] == [7, 4, 8]
    assert sum(task.classes for task in TASKS.values()) == 795 + 62 + 83
    assert all(name in str(VtabConfig.model_fields["path"].description) for name in TASKS)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"cifar100": 1.0}, "no task 'cifar100'. Did you mean cifar"),
        ({"kitti": None, "svhn": None}, "take all 19 tasks; missing: svhn, kitti"),
        ({"dtd": float("nan")}, "the score of dtd is nan, not a finite number"),
    ],
)
def test_a_board_with_other_tasks_has_no_average(change: dict[str, float | None], sentence: str) -> None:
    scores = {name: score for name, score in (board(GPS) | change).items() if score is not None}  # type: ignore[operator]
    with pytest.raises(DataError, match=sentence):
        means(scores)


def test_it_needs_no_torch() -> None:
    code = "import sys, peftx_vision.vtab; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
