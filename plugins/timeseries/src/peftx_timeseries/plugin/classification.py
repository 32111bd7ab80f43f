"""What the pack offers for classification: a task, data sets, rows to compare with, a suite. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import DatasetSpec, MethodSpec, SuiteSpec, TaskSpec
from peftx_timeseries.plugin.shared import HOSTS, compared

__all__ = ["CLASSIFICATION_ROWS", "datasets", "rows", "suites", "task"]

_TASK = "timeseries.classification"
_CONFIG = "config.classification"

_ROWS = (
    compared(
        "majority",
        "the most frequent class, for every sample",
        "methods.classifiers:Majority",
        f"{_CONFIG}:MajorityConfig",
        _TASK,
    ),
    compared(
        "nearest",
        "the class of the nearest training sample, step by step or with time warped",
        "methods.classifiers:NearestNeighbour",
        f"{_CONFIG}:NearestConfig",
        _TASK,
    ),
    compared(
        "rocket",
        "ROCKET: random convolutions and a ridge classifier in closed form",
        "methods.classifiers:RocketRidge",
        f"{_CONFIG}:RocketConfig",
        _TASK,
        paper="arXiv:1910.13051",
    ),
)
#: Rows to compare with, always printed.
CLASSIFICATION_ROWS = tuple(row.name for row in _ROWS)


def task() -> TaskSpec:
    """The task."""
    return TaskSpec(
        name=_TASK,
        summary="one class for each sample of several channels, with a language model between two projections",
        target="peftx_timeseries.tasks.classification:Classification",
        config=f"peftx_timeseries.{_CONFIG}:ClassificationConfig",
        offers=HOSTS,
        default_data="timeseries.patterns",
        default_model="timeseries.random",
        default_method="timeseries.one_for_all",
        baselines=CLASSIFICATION_ROWS,
        reference="timeseries.rocket",
        models="peftx_timeseries.models.names:known",
    )


def rows() -> Iterator[MethodSpec]:
    """The rows to compare with; none takes a gradient step."""
    yield from _ROWS


def datasets() -> Iterator[DatasetSpec]:
    """Labelled series."""
    yield DatasetSpec(
        name="timeseries.patterns",
        summary="synthetic samples of three channels in six classes; computed, no download",
        target="peftx_timeseries.data.patterns:load",
        config=f"peftx_timeseries.{_CONFIG}:PatternsConfig",
        licence="none needed",
        source="computed from a seed",
        size="none",
        synthetic=True,
    )
    yield DatasetSpec(
        name="timeseries.uea",
        summary="a problem of the UEA or UCR archive, or your own: NAME_TRAIN.ts and NAME_TEST.ts",
        target="peftx_timeseries.data.uea:load",
        locate="peftx_timeseries.data.uea:locate",
        config=f"peftx_timeseries.{_CONFIG}:UeaConfig",
        licence="that of each problem",
        source="https://www.timeseriesclassification.com/dataset.php",
        verified=False,
        parametric=True,
    )


def suites() -> Iterator[SuiteSpec]:
    """The benchmark suite."""
    yield SuiteSpec(
        name="timeseries.uea",
        summary="six problems of the UEA archive, as GPT4TS and One-for-All used them; you bring the data",
        target="peftx_timeseries.suites.uea:UEA",
        averages="peftx_timeseries.suites.uea:averages",
    )
