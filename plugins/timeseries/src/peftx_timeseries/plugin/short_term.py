"""What the pack offers for short-term forecasting: a task, a data set, a row to compare with, a suite. No torch, no
numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import DatasetSpec, MethodSpec, SuiteSpec, TaskSpec
from peftx_timeseries.plugin.shared import HOSTS, compared

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
        offers=HOSTS,
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
    yield compared(
        "naive2",
        "the last value, adjusted for the season where a test finds one: the benchmark of the M4 competition",
        "methods.naive:Naive2",
        "config.methods:NaiveConfig",
        NAME,
        paper="doi:10.1016/j.ijforecast.2019.04.014",
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
