"""What the pack offers for classification: a task, data sets, rows to compare with, a suite. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import DatasetSpec, MethodSpec, Offers, SuiteSpec, TaskSpec

__all__ = ["CLASSIFICATION_ROWS", "datasets", "rows", "suites", "task"]

_TASK = "timeseries.classification"
_CONFIG = "peftx_timeseries.config.classification"

#: Rows to compare with, always printed: name, summary, class, configuration, paper.
_COMPARED = (
    ("majority", "the most frequent class, for every sample", "Majority", "MajorityConfig", ""),
    (
        "nearest",
        "the class of the nearest training sample, step by step or with time warped",
        "NearestNeighbour",
        "NearestConfig",
        "",
    ),
    (
        "rocket",
        "ROCKET: random convolutions and a ridge classifier in closed form",
        "RocketRidge",
        "RocketConfig",
        "arXiv:1910.13051",
    ),
)
CLASSIFICATION_ROWS = tuple(f"timeseries.{name}" for name, *_ in _COMPARED)


def task() -> TaskSpec:
    """The task."""
    return TaskSpec(
        name=_TASK,
        summary="one class for each sample of several channels, with a language model between two projections",
        target="peftx_timeseries.tasks.classification:Classification",
        config=f"{_CONFIG}:ClassificationConfig",
        offers=Offers(sites=("linear", "linear_t", "norm", "embedding", "parameter", "activation")),
        default_data="timeseries.patterns",
        default_model="timeseries.random",
        default_method="timeseries.one_for_all",
        baselines=CLASSIFICATION_ROWS,
        reference="timeseries.rocket",
        models="peftx_timeseries.models.names:known",
    )


def rows() -> Iterator[MethodSpec]:
    """The rows to compare with; none takes a gradient step."""
    for name, summary, target, config, paper in _COMPARED:
        yield MethodSpec(
            name=f"timeseries.{name}",
            summary=summary,
            target=f"peftx_timeseries.methods.classifiers:{target}",
            config=f"{_CONFIG}:{config}",
            kind="model",
            paper=paper,
            licence="Apache-2.0",
            tags=("baseline",),
            trained=False,
            tasks=(_TASK,),
        )


def datasets() -> Iterator[DatasetSpec]:
    """Labelled series."""
    yield DatasetSpec(
        name="timeseries.patterns",
        summary="synthetic samples of three channels in six classes; computed, no download",
        target="peftx_timeseries.data.patterns:load",
        config=f"{_CONFIG}:PatternsConfig",
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
        config=f"{_CONFIG}:UeaConfig",
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
