"""vision/cifar: whole and with 1,000 images, each as long as its protocol says."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from peftx.bench import Request, prepare
from peftx.bench.grid import build_grid
from peftx.config.suite import label
from peftx.errors import NetworkError
from peftx.plugins import get_registry
from peftx_vision.suites import CIFAR


def test_lengths() -> None:
    request = Request(suite="vision/cifar")
    grid = build_grid("vision.cifar", CIFAR, request, get_registry(), locate=False)
    steps = {}
    for row in grid.rows:
        train = row.plan.config.train
        images = row.plan.data_config.limit_train or 45_000
        steps[row.data] = math.ceil(images / train.batch_size) * train.epochs
        assert row.plan.data_config.val_fraction == 0.1 and row.plan.task_config.hflip
    assert steps == {
        "vision.cifar10": 3520,
        "vision.cifar100": 3520,
        "vision.cifar10 limit_train=1000": 1600,
        "vision.cifar100 limit_train=1000": 1600,
    }
    assert list(steps) == [label(one) for one in CIFAR.data]


def test_without_data_and_network_all_of_it_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEFTX_DATA", str(tmp_path / "cache"))
    with pytest.raises(NetworkError, match=r"^none of the 4 data sets .*get it from https://") as caught:
        prepare(Request(suite="vision/cifar", out=tmp_path / "out", offline=True))
    assert "\n" not in str(caught.value)
