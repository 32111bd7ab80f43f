"""The rows a detector is compared with: by hand, and against an independent PCA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from peftx.data.contract import DataContext
from peftx.errors import ConfigError, DataError
from peftx.tasks import ModelSource
from peftx_timeseries.config.anomaly import (
    AnomalyConfig,
    FaultsConfig,
    PCAConfig,
    RandomScoreConfig,
    ZeroConfig,
)
from peftx_timeseries.config.data import WavesConfig
from peftx_timeseries.config.tasks import ForecastingConfig
from peftx_timeseries.data import faults, waves
from peftx_timeseries.methods.anomaly import PCA, RandomScore, ZeroReconstruction
from peftx_timeseries.tasks.anomaly import AnomalyDetection
from peftx_timeseries.tasks.forecasting import Forecasting

SOURCE = ModelSource("timeseries.random")


@pytest.fixture
def make() -> Callable[..., AnomalyDetection]:
    def build(**options: Any) -> AnomalyDetection:
        ctx = DataContext.create()
        data = faults.load(FaultsConfig(rows=1000, events=1, count=4), ctx)
        return AnomalyDetection(AnomalyConfig(**{"length": 50, "segment": 25, **options}), data, SOURCE, ctx)

    return build


def test_zero_reconstruction_is_the_distance_from_the_training_mean(
    make: Callable[..., AnomalyDetection],
) -> None:
    task = make()
    model = ZeroReconstruction().build(task, ZeroConfig())
    scores = task.scores_of(model, task.data.splits["test"][0], "cpu")
    train = task.data.splits["train"][0]
    rows = train.values[: train.end]
    z = (task.data.splits["test"][0].values - rows.mean(0)) / rows.std(0)
    assert scores == pytest.approx((z**2).mean(1), rel=1e-5)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("explained", [0.5, 0.9, 1.0])
def test_pca_is_that_of_scikit_learn(
    make: Callable[..., AnomalyDetection], rows: int, explained: float
) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    task = make()
    config = PCAConfig(explained=explained, rows=rows)
    model = PCA().build(task, config)
    model.load_state_dict({name: value.float() for name, value in PCA().fit(model, task, config).items()})
    blocks = task.blocks("train", scoring=True)
    groups = blocks.values.reshape(-1, rows * 4).astype(np.float64)
    reference = decomposition.PCA(svd_solver="full").fit(groups)
    share = np.cumsum(reference.explained_variance_ratio_)
    kept = min(int(np.searchsorted(share, explained - 1e-12)) + 1, groups.shape[1] - 1)
    leading = decomposition.PCA(kept, svd_solver="full").fit(groups)
    expected = leading.inverse_transform(leading.transform(groups)).reshape(-1, 50, 4)
    found = model(torch.from_numpy(blocks.cut(np.arange(len(blocks)))))
    assert found.detach().numpy() == pytest.approx(expected, abs=1e-4)


def test_noise_is_uniform_and_follows_from_the_row_alone(make: Callable[..., AnomalyDetection]) -> None:
    task = make()
    model = RandomScore().build(task, RandomScoreConfig())
    test = task.data.splits["test"][0]
    scores = task.scores_of(model, test, "cpu")
    assert scores.min() >= 0 and scores.max() < 1.001
    assert scores.mean() == pytest.approx(0.5, abs=0.05)
    assert np.quantile(scores, [0.25, 0.75]) == pytest.approx([0.25, 0.75], abs=0.06)
    assert (task.scores_of(model, test, "cpu") == scores).all()
    assert len(np.unique(scores.round(5))) > 900  # no row repeats another
    other = RandomScore().build(task, RandomScoreConfig(score_seed=1))
    assert np.corrcoef(task.scores_of(other, test, "cpu"), scores)[0, 1] == pytest.approx(0, abs=0.1)


def test_pca_refuses_what_does_not_divide_or_is_too_little(make: Callable[..., AnomalyDetection]) -> None:
    task = make()
    with pytest.raises(ConfigError, match=r"7 rows at a time do not divide a window of 50"):
        PCA().build(task, PCAConfig(rows=7))
    config = PCAConfig(rows=50)
    with pytest.raises(
        DataError, match=r"16 groups of 50 training rows are too few for components of 200 values"
    ):
        PCA().fit(PCA().build(task, config), task, config)


def test_rows_belong_to_their_task() -> None:
    ctx = DataContext.create()
    task = Forecasting(ForecastingConfig(), waves.load(WavesConfig(), ctx), SOURCE, ctx)
    for row, config in (
        (PCA, PCAConfig()),
        (ZeroReconstruction, ZeroConfig()),
        (RandomScore, RandomScoreConfig()),
    ):
        with pytest.raises(ConfigError, match="Forecasting detects no anomalies"):
            row().build(task, config)
