"""Data sets, tasks and models: every law finds the fault planted for it alone; the sound pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from peftx.testing import check
from peftx.testing.laws.data import _digest

DATA = (
    "data_config locating locating_slow locating_network offline no_pickle splits splits_unstable fingerprint "
    "fingerprint_limit classes classes_labels indexing card published"
).split()
TASKS = (
    "task_config offers build covers covers_order loss loss_sum meter metrics metrics_selects keeps_no_model recipes"
).split()
MODELS = "model_config built head parameters roles".split()
FINDS = {
    "locating_slow": "locating",
    "locating_network": "locating",
    "splits_unstable": "splits",
    "fingerprint_limit": "fingerprint",
    "classes_labels": "classes",
    "covers_order": "covers",
    "loss_sum": "loss",
    "metrics_selects": "metrics",
}


def found_alone(name, fault):
    report = check(name)
    assert report.broken_laws == (FINDS.get(fault, fault),), report.render()
    assert all("\n" not in outcome.message and outcome.message for outcome in report.failed)
    return True


@pytest.mark.parametrize("fault", DATA)
def test_a_fault_of_a_data_set_is_found_by_its_law_alone(toys, fault):
    assert found_alone(f"kit.data_{fault}", fault)


@pytest.mark.parametrize("fault", TASKS)
def test_a_fault_of_a_task_is_found_by_its_law_alone(toys, fault):
    assert found_alone(f"kit.task_{fault}", fault)


@pytest.mark.parametrize("fault", MODELS)
def test_a_fault_of_a_model_is_found_by_its_law_alone(toys, fault):
    assert found_alone(f"kit.net_{fault}", fault)


@pytest.mark.parametrize("name", ["kit.points", "kit.sorting", "kit.net"])
def test_the_sound_keep_every_law(toys, name):
    report = check(name)
    assert report.ok and not report.of("skipped", "failed")[1:], report.render()


@dataclass(frozen=True, slots=True)
class Recording:
    name: str
    values: np.ndarray


def test_two_samples_that_differ_in_the_middle_of_a_long_array_are_two():
    values = np.zeros(5000)
    other = values.copy()
    other[2500] = 1
    assert _digest(Recording("a", values)) == _digest(Recording("a", values.copy()))
    assert _digest(Recording("a", values)) != _digest(Recording("a", other))
    assert _digest(Recording("a", values)) != _digest(Recording("b", values))
