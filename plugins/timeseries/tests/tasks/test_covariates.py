"""Covariates in forecasting: which are looked at, that none is looked at too early, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx.config.run import RunConfig
from peftx.data.contract import DataContext, Dataset
from peftx.errors import DataError
from peftx.plugins import get_registry
from peftx.runs import execute
from peftx.runs.reload import evaluate as evaluate_run
from peftx.tasks import ModelSource
from peftx.tasks.scoring import evaluate
from peftx_timeseries.config.methods import DLinearConfig, LeastSquaresConfig, NaiveConfig
from peftx_timeseries.config.tasks import ForecastingConfig
from peftx_timeseries.data.dataset import make_dataset, split_rows
from peftx_timeseries.methods.linear import DLinear, LeastSquares
from peftx_timeseries.methods.naive import RepeatLast
from peftx_timeseries.models.hosts import random_trunk
from peftx_timeseries.series.series import Series
from peftx_timeseries.tasks.forecasting import Forecasting

ROWS, BORDERS = 400, {"train": (0, 250), "val": (250, 320), "test": (320, 400)}
Change = Callable[[dict[str, Any]], None]


def columns() -> dict[str, Any]:
    draw = np.random.default_rng(0)
    known, past = (draw.random(ROWS) < 0.2).astype(float), draw.normal(size=ROWS)
    wave = 10 * np.sin(2 * np.pi * np.arange(ROWS)[:, None] / 24 + np.arange(2))
    delayed = np.concatenate([np.zeros(4), past[:-4]])[:, None]
    values = 50 + wave + 8 * known[:, None] + 6 * delayed + draw.normal(size=(ROWS, 2))
    return {"values": values, "known": known, "past": past}


def made(change: Change | None = None, known: tuple[str, ...] = ("off",), past: Any = ("warm",)) -> Dataset:
    held = columns()
    if change is not None:
        change(held)
    series = Series("s", held["values"], ("a", "b"), covariates={"off": held["known"], "warm": held["past"]})
    splits = {name: [part] for name, part in split_rows(series, BORDERS).items()}
    return make_dataset(
        "timeseries.test", splits, frequency="h", period=24, source="x", licence="y", known=known, past=past
    )


def task(data: Dataset | None = None, residual: str = "none", **options: Any) -> Forecasting:
    config = ForecastingConfig.model_validate({"input_length": 48, "horizon": 12, **options})
    host = {"patch": 8, "stride": 4, "residual": residual}
    source = ModelSource("timeseries.random", host, lambda _: random_trunk(16, 2, 1))
    return Forecasting(config, data or made(), source, DataContext.create(offline=True))


def forecaster(of: Forecasting, residual: str = "none") -> nn.Module:
    """With covariates that weigh something."""
    torch.manual_seed(0)
    model = of.build_model().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "covariate" in name:
                parameter.normal_(generator=generator)
    return model


def fitted(of: Forecasting, **options: Any) -> nn.Module:
    config = LeastSquaresConfig(**options)
    model = LeastSquares().build(of, config)
    model.load_state_dict(LeastSquares().fit(model, of, config))
    return model


def first(of: Forecasting) -> dict[str, Tensor]:
    """The first window of the test split, of both channels: rows 272 .. 319, and 320 .. 331 to be forecast."""
    return next(iter(of.batches("test", 2)))


def score(of: Forecasting, model: nn.Module) -> float:
    return evaluate(of, model, "test", 64)["mse"]


def test_batches_hold_the_covariates_that_are_asked_for_and_no_row_too_many() -> None:
    shapes = {"known": (2, 1, 60), "past": (2, 1, 48)}
    for option, kinds in (
        ("auto", ("known", "past")), ("all", ("known", "past")), ("known", ("known",)), ("past", ("past",)),
        ("none", ()),
    ):  # fmt: skip
        batch = first(task(covariates=option))
        assert {name: tuple(batch[name].shape) for name in batch if name in shapes} == {
            kind: shapes[kind] for kind in kinds
        }
    plain = first(task(made(known=(), past=())))
    assert set(plain) == {"x", "y", "std"} and torch.equal(plain["x"], batch["x"])
    for option, says in (
        ("all", "covariates, and the data declare none: name columns with --data.known or --data.past"),
        ("past", r"covariates that are past, and the data declare none: name columns with --data.past, or"),
    ):
        with pytest.raises(DataError, match=f"^--task.covariates {option} asks for {says}"):
            task(made(known=("off",) if option == "past" else (), past=()), covariates=option)


@pytest.mark.parametrize("model", [forecaster, fitted], ids=["adapter", "least_squares"])
def test_nothing_that_is_not_known_yet_changes_a_forecast(model: Any) -> None:
    of = task()
    looks = model(of)
    with torch.no_grad():
        before = of.forward(looks, first(of))

        def after(change: Change) -> Tensor:
            return of.forward(looks, first(task(made(change))))

        def future_of(name: str) -> Change:
            return lambda held: held[name].__setitem__(slice(320, None), held[name][320:] + 7.0)

        assert torch.equal(after(future_of("past")), before)
        assert torch.equal(after(future_of("values")), before)
        moved = after(future_of("known"))
        assert not torch.isclose(moved, before).any()
        # a row's own day alone: what is known of the fifth row is no matter of the others
        one = after(lambda held: held["known"].__setitem__(324, held["known"][324] + 7.0)) - before
        assert one[:, 4].abs().min() > 1e-3 and one[:, [0, 1, 2, 3, *range(5, 12)]].abs().max() < 1e-5
        for name in ("past", "known", "values"):
            assert not torch.equal(after(lambda held, n=name: held[n].__setitem__(318, 3.0)), before)
        beyond = after(lambda held: held["known"].__setitem__(slice(332, None), 7.0))
        assert torch.equal(beyond, before)


def test_the_scaling_comes_from_training_rows_alone() -> None:
    def late(held: dict[str, Any]) -> None:
        for column in held.values():
            column[250:] *= 1000

    of, other = task(), task(made(late))
    assert of.scaler is not None and other.scaler is not None
    assert of.scaler.to_dict() == other.scaler.to_dict()
    with torch.no_grad():
        weights = [fitted(each).state_dict() for each in (of, other)]
    assert all(torch.equal(a, b) for a, b in zip(*(each.values() for each in weights), strict=True))
    batch = next(iter(of.batches("train", 1)))
    off = columns()["known"]
    expected = (off[:60] - off[:250].mean()) / off[:250].std()
    np.testing.assert_allclose(batch["known"][0, 0], expected, rtol=1e-5)


def test_missing_covariates_are_masked_and_training_stays_finite() -> None:
    def gaps(held: dict[str, Any]) -> None:
        held["known"][::5] = np.nan
        held["past"][::3] = np.nan

    of = task(made(gaps))
    batch = first(of)
    rows = np.arange(320 - 48, 320 + 12)
    assert (batch["known"][0, 0].numpy()[rows % 5 == 0] == 0).all()
    assert (batch["past"][0, 0].numpy()[rows[:48] % 3 == 0] == 0).all()
    model = forecaster(of)
    of.loss(model, batch).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert np.isfinite(score(of, fitted(of)))


def test_the_residual_starts_as_the_closed_form_with_covariates() -> None:
    of = task(residual="linear")
    line, plain = score(of, fitted(of)), score(of, fitted(of, covariates=False))
    assert score(of, of.build_model()) == pytest.approx(line, rel=1e-5)
    assert line < 0.5 * plain
    assert score(of, fitted(task(covariates="none"))) == pytest.approx(plain, rel=1e-6)
    past_alone = task(covariates="past", residual="linear")
    assert score(past_alone, past_alone.build_model()) == pytest.approx(
        score(past_alone, fitted(past_alone)), rel=1e-5
    )
    few, many = (score(of, fitted(of, covariate_rows=rows)) for rows in (0, 6))
    assert line < plain and many < few  # the past one acts four rows later


def test_rows_that_look_at_no_covariates_say_so_once() -> None:
    of = task(made(known=("off",), past=()))
    of.prepare(["test"])
    for method, config in (
        (RepeatLast, NaiveConfig()),
        (DLinear, DLinearConfig()),
        (RepeatLast, NaiveConfig()),
    ):
        model = method().build(of, config)
        assert of.forward(model, first(of)).shape == (2, 12)
    assert of.notes[1:] == [
        "covariates: off (known ahead of time)",
        "repeat_last, seasonal_naive, window_mean, dlinear and nlinear look at no covariates",
    ]
    without = task(covariates="none")
    without.prepare(["test"])
    RepeatLast().build(without, NaiveConfig())
    assert without.notes[1:] == ["covariates: not looked at: off, warm"]


@pytest.mark.parametrize("method", ["timeseries.one_for_all", "timeseries.gpt4ts", "core.lora", "core.head"])
def test_weight_methods_fit_and_train_what_the_covariates_need(method: str) -> None:
    of = task()
    torch.manual_seed(0)
    model = of.build_model()
    adapted = peftx.attach(model, method)
    model.eval()  # no dropout
    batch = first(of)
    with torch.no_grad():
        before = of.forward(model, batch)
    of.loss(model, batch).backward()
    grads = {site: tensor.grad for (site, _), tensor in adapted.tensors().items()}
    for name in ("covariate_in.weight", "covariate_out.future"):
        assert grads[name] is not None and grads[name].abs().sum() > 0
    with torch.no_grad():
        for (site, _), tensor in adapted.tensors().items():
            if site.startswith("covariate"):
                tensor.add_(0.1)
        assert not torch.equal(of.forward(model, batch), before)
        with adapted.disabled():
            torch.testing.assert_close(of.forward(model, batch), before)


def test_one_forecast_of_what_comes_next_is_the_one_of_the_window() -> None:
    of = task()
    batch = first(of)
    one = replace(of.data.splits["test"][0], begin=0, end=320)
    more = of.ahead(one)
    assert all(torch.equal(more[kind], batch[kind]) for kind in ("known", "past"))
    model = forecaster(of)
    with torch.no_grad():
        assert torch.equal(of.forecast(model, batch["x"], more), of.forward(model, batch))
    says = "^s: a forecast of rows {} to {} looks at off, known ahead of time, in all of them, and {}: give a table"
    with pytest.raises(DataError, match=says.format(396, 407, "there are rows up to 400")):
        of.ahead(replace(one, end=395))
    # of a forecast that is cut short the rows that are wanted are enough
    few = of.ahead(replace(one, end=395), 5)
    assert few["known"].shape == more["known"].shape and not few["known"][:, :, -7:].any()
    twice = {name: np.tile(column, 2) for name, column in one.covariates.items()}
    held = of.ahead(replace(one, values=np.tile(one.values, (2, 1)), covariates=twice, times=None, end=395))
    with torch.no_grad():
        cut, long = (of.forecast(model, batch["x"], part) for part in (few, held))
    assert torch.equal(cut[:, :5], long[:, :5]) and not torch.equal(cut, long)
    with pytest.raises(DataError, match=says.format(396, 401, "there are rows up to 400")):
        of.ahead(replace(one, end=395), 6)
    one.covariates["off"][325] = np.nan
    with pytest.raises(DataError, match=says.format(321, 332, "'off' has no value in row 326")):
        of.ahead(one)
    assert set(task(covariates="past").ahead(replace(one, end=400))) == {"past"}


RUN: Mapping[str, Any] = {
    "task": {"name": "timeseries", "input_length": 48, "horizon": 12, "stride": 8},
    "data": {"name": "demand", "rows": 900},
    "model": {"name": "random", "patch": 8, "stride": 4, "width": 16, "heads": 2, "blocks": 1},
    "train": {"epochs": 1},
    "device": "cpu",
    "offline": True,
    "efficiency": False,
    "report": False,
}


def test_a_run_learns_from_covariates_and_can_be_scored_again(tmp_path: Any) -> None:
    config = dict(RUN) | {"baselines": ["timeseries.least_squares"], "out": tmp_path / "run"}
    result = execute(RunConfig.model_validate(config))
    assert not any("error" in row for row in result.rows)
    assert "covariates: closed (known ahead of time); temperature (known as they happen)" in result.notes
    assert evaluate_run(result.folder, get_registry()).exact
    with_them = result.rows[1]["metrics"]["test"]["mse"]
    config["task"] = config["task"] | {"covariates": "none"}
    config |= {"out": tmp_path / "without", "method": "timeseries.least_squares", "baselines": []}
    without = execute(RunConfig.model_validate(config)).rows[0]["metrics"]["test"]["mse"]
    assert with_them < 0.6 * without
