"""What the pack offers for anomaly detection: a task, data sets, rows to compare with. No torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import DatasetSpec, MethodSpec, Offers, PanelSpec, SuiteSpec, TaskSpec

__all__ = ["ANOMALY_ROWS", "datasets", "panels", "rows", "suites", "task"]

_TASK = "timeseries.anomaly"
_CONFIG = "peftx_timeseries.config.anomaly"

#: Rows to compare with, always printed: name, summary, class, configuration, paper.
_COMPARED = (
    (
        "zero_reconstruction",
        "a row's distance from the training mean",
        "ZeroReconstruction",
        "ZeroConfig",
        "",
    ),
    ("pca", "rows from the leading components of the training rows, in closed form", "PCA", "PCAConfig", ""),
    (
        "random_score",
        "scores that are noise: what point adjustment gives for nothing",
        "RandomScore",
        "RandomScoreConfig",
        "arXiv:2109.05257",
    ),
)
ANOMALY_ROWS = tuple(f"timeseries.{name}" for name, *_ in _COMPARED)


def task() -> TaskSpec:
    """The task."""
    return TaskSpec(
        name=_TASK,
        summary="which rows are anomalous, by how badly a model of normal rows reconstructs them",
        target="peftx_timeseries.tasks.anomaly:AnomalyDetection",
        config=f"{_CONFIG}:AnomalyConfig",
        offers=Offers(sites=("linear", "linear_t", "norm", "embedding", "parameter", "activation")),
        default_data="timeseries.faults",
        default_model="timeseries.random",
        default_method="timeseries.one_for_all",
        baselines=ANOMALY_ROWS,
        models="peftx_timeseries.models.names:known",
    )


def rows() -> Iterator[MethodSpec]:
    """The rows to compare with; none takes a gradient step."""
    for name, summary, target, config, paper in _COMPARED:
        yield MethodSpec(
            name=f"timeseries.{name}",
            summary=summary,
            target=f"peftx_timeseries.methods.anomaly:{target}",
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
        name="timeseries.faults",
        summary="synthetic sensors: normal rows, and test rows with faults of four kinds; computed, no download",
        target="peftx_timeseries.data.faults:load",
        config=f"{_CONFIG}:FaultsConfig",
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
        config=f"{_CONFIG}:LabelledConfig",
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
