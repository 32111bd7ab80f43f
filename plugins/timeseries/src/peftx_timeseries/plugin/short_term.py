"""What the pack offers for short-term forecasting: a task, a data set, a row to compare with, a suite. No torch, no
numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import DatasetSpec, MethodSpec, Offers, SuiteSpec, TaskSpec

__all__ = ["NAME", "datasets", "rows", "suites", "task"]

#: The task's full name.
NAME = "timeseries.short_term"


def task(rows: tuple[str, ...]) -> TaskSpec:
    """The task. `rows`: what forecasting in general is compared with."""
    return TaskSpec(
        name=NAME,
        summary="one forecast of each of many series, of its last rows, by the errors of the M competitions",
        target="peftx_timeseries.tasks.short_term:ShortTerm",
        config="peftx_timeseries.config.short_term:ShortTermConfig",
        offers=Offers(sites=("linear", "linear_t", "norm", "embedding", "parameter", "activation")),
        default_data="timeseries.months",
        default_model="timeseries.random",
        default_method="timeseries.one_for_all",
        baselines=("timeseries.naive2", *rows),
        reference="timeseries.naive2",
        models="peftx_timeseries.models.names:known",
        predict_config="peftx_timeseries.config.predict:ForecastConfig",
    )


def rows() -> Iterator[MethodSpec]:
    """The row that needs a series' whole history, which no other task has."""
    yield MethodSpec(
        name="timeseries.naive2",
        summary="the last value, adjusted for the season where a test finds one: the benchmark of the M4 competition",
        target="peftx_timeseries.methods.naive:Naive2",
        config="peftx_timeseries.config.methods:NaiveConfig",
        kind="model",
        paper="doi:10.1016/j.ijforecast.2019.04.014",
        licence="Apache-2.0",
        tags=("baseline",),
        trained=False,
        tasks=(NAME,),
    )


def datasets() -> Iterator[DatasetSpec]:
    """Many short series that need no download."""
    yield DatasetSpec(
        name="timeseries.months",
        summary="120 synthetic monthly series of 45 to 120 months, with trend and season; computed, no download",
        target="peftx_timeseries.data.months:load",
        config="peftx_timeseries.config.data:MonthsConfig",
        licence="none needed",
        source="computed from a seed",
        size="none",
        synthetic=True,
    )


def suites() -> Iterator[SuiteSpec]:
    """The benchmark suite."""
    yield SuiteSpec(
        name="timeseries.m4",
        summary="the six groups of the M4 competition, with the averages by the number of series; you bring the data",
        target="peftx_timeseries.suites.m4:M4",
        averages="peftx_timeseries.suites.m4:averages",
    )
