"""What the pack offers for anomaly detection: a task, data sets, rows to compare with. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import DatasetSpec, MethodSpec, PanelSpec, SuiteSpec, TaskSpec
from peftx_timeseries.plugin.shared import HOSTS, compared

__all__ = ["ANOMALY_ROWS", "datasets", "panels", "rows", "suites", "task"]

_TASK = "timeseries.anomaly"
_CONFIG = "config.anomaly"

_ROWS = (
    compared(
        "zero_reconstruction",
        "a row's distance from the training mean",
        "methods.anomaly:ZeroReconstruction",
        f"{_CONFIG}:ZeroConfig",
        _TASK,
    ),
    compared(
        "pca",
        "rows from the leading components of the training rows, in closed form",
        "methods.anomaly:PCA",
        f"{_CONFIG}:PCAConfig",
        _TASK,
    ),
    compared(
        "random_score",
        "scores that are noise: what point adjustment gives for nothing",
        "methods.anomaly:RandomScore",
        f"{_CONFIG}:RandomScoreConfig",
        _TASK,
        paper="arXiv:2109.05257",
    ),
)
#: Rows to compare with, always printed.
ANOMALY_ROWS = tuple(row.name for row in _ROWS)


def task() -> TaskSpec:
    """The task."""
    return TaskSpec(
        name=_TASK,
        summary="which rows are anomalous, by how badly a model of normal rows reconstructs them",
        target="peftx_timeseries.tasks.anomaly:AnomalyDetection",
        config=f"peftx_timeseries.{_CONFIG}:AnomalyConfig",
        offers=HOSTS,
        default_data="timeseries.faults",
        default_model="timeseries.random",
        default_method="timeseries.one_for_all",
        baselines=ANOMALY_ROWS,
        models="peftx_timeseries.models.names:known",
    )


def rows() -> Iterator[MethodSpec]:
    """The rows to compare with; none takes a gradient step."""
    yield from _ROWS


def datasets() -> Iterator[DatasetSpec]:
    """Labelled series."""
    yield DatasetSpec(
        name="timeseries.faults",
        summary="synthetic sensors: normal rows, and test rows with faults of four kinds; computed, no download",
        target="peftx_timeseries.data.faults:load",
        config=f"peftx_timeseries.{_CONFIG}:FaultsConfig",
        licence="none needed",
        source="computed from a seed",
        size="none",
        synthetic=True,
    )
    yield DatasetSpec(
        name="timeseries.labelled",
        summary="a folder of normal training rows and labelled test rows, such as PSM, MSL, SMAP, SMD or SWaT",
        target="peftx_timeseries.data.labelled:load",
        locate="peftx_timeseries.data.labelled:locate",
        config=f"peftx_timeseries.{_CONFIG}:LabelledConfig",
        licence="the files' own",
        source="PATH",
        verified=False,
        parametric=True,
    )


def suites() -> Iterator[SuiteSpec]:
    """The five sets that papers share."""
    yield SuiteSpec(
        name="timeseries.anomaly",
        summary="PSM, MSL, SMAP, SMD and SWaT, brought by hand: raw scores beside point-adjusted ones",
        target="peftx_timeseries.suites.anomaly:ANOMALY",
    )


def panels() -> Iterator[PanelSpec]:
    """Scores over time."""
    yield PanelSpec("timeseries.scores", "Scores over time", "peftx_timeseries.report.scores:scores")
