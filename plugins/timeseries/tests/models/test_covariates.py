"""Covariates in the forecaster and in the closed form, against independent computations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from peftx.errors import DataError, ModelError
from peftx_timeseries.models.covariates import CovariateMap
from peftx_timeseries.models.forecaster import Forecaster
from peftx_timeseries.models.hosts import random_trunk
from peftx_timeseries.models.regression import least_squares_with_covariates
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit
from peftx_timeseries.series.windows import Windows


class Echo(nn.Module):
    """A trunk that returns what it is given."""

    width = 3

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


def forecaster(**options: Any) -> Forecaster:
    return Forecaster(Echo(), length=20, horizon=4, patch=6, stride=5, **options)  # type: ignore[arg-type]


def drawn(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "covariate" in name:
                parameter.normal_(generator=generator)
    return model


def batch(known: int, past: int, rows: int = 3) -> tuple[Tensor, Tensor | None, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(rows, *shape, generator=generator) for shape in ((20,), (known, 24), (past, 20))]
    return made[0], made[1] if known else None, made[2] if past else None


def test_the_forecaster_computes_what_its_equations_say() -> None:
    model = drawn(forecaster(known=2, past=1).double())
    x, known, past = (part.double() for part in batch(2, 1))  # type: ignore[union-attr]
    w = {name: value.detach().numpy() for name, value in model.named_parameters()}
    held = np.concatenate([known.numpy()[:, :, :20], past.numpy()], 1)
    held = np.concatenate([held, np.repeat(held[:, :, -1:], 5, 2)], 2)
    mean, std = x.numpy().mean(1, keepdims=True), np.sqrt(x.numpy().var(1, keepdims=True) + 1e-5)
    z = np.concatenate([(x.numpy() - mean) / std, np.repeat((x.numpy()[:, -1:] - mean) / std, 5, 1)], 1)
    tokens = []
    for at in range(0, 20, 5):
        token = z[:, at : at + 6] @ w["in_layer.weight"].T + w["in_layer.bias"]
        tokens.append(token + held[:, :, at : at + 6].reshape(3, -1) @ w["covariate_in.weight"].T)
    features = np.stack(tokens, 1).reshape(3, -1)
    y = (features @ w["out_layer.weight"].T + w["out_layer.bias"]) * std + mean
    for row in range(4):
        for column in range(2):
            y[:, row] += w["covariate_out.future"][column, row] * known.numpy()[:, column, 20 + row]
    np.testing.assert_allclose(model(x, known=known, past=past).detach().numpy(), y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("known", "past"), [(2, 1), (1, 0), (0, 2)])
@pytest.mark.parametrize("quantiles", [0, 3])
@pytest.mark.parametrize("linear", [False, True])
def test_it_starts_as_the_forecaster_without_and_counts_as_told(
    known: int, past: int, quantiles: int, linear: bool
) -> None:
    options: dict[str, Any] = {"quantiles": quantiles, "linear": linear}
    model = forecaster(known=known, past=past, covariate_rows=7, **options)
    plain = forecaster(**options)
    x, *covariates = batch(known, past)
    assert torch.equal(model(x, None, *covariates), plain(x))
    more = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.parameters())
    counted = (known + past) * 6 * 3 + known * 4 + linear * (known + past) * 7 * 4
    assert more == counted
    assert set(plain.state_dict()) == {
        name for name in model.state_dict() if not name.startswith("covariate")
    }
    drawn(model)
    moved = model(x, None, *covariates)
    assert moved.shape == plain(x).shape and torch.isfinite(moved).all()
    # quantiles move together, in the row that a covariate is known of
    if known:
        other = covariates[0].clone()
        other[:, :, 22] += 1
        gap = model(x, None, other, covariates[1]) - moved
        assert (gap.flatten(2) if quantiles else gap[..., None])[:, [0, 1, 3]].abs().max() < 1e-5
        assert gap[:, 2].abs().min() > 1e-3
        if quantiles:
            torch.testing.assert_close(gap[:, 2, 0], gap[:, 2, 2])


def test_other_covariates_than_it_was_made_for_are_refused() -> None:
    x, known, past = batch(2, 1)
    with pytest.raises(ModelError, match="for 2 known and 1 past covariates was given 2 and 0: give those"):
        forecaster(known=2, past=1)(x, known=known)
    with pytest.raises(ModelError, match="for 0 known and 0 past covariates was given 2 and 1"):
        forecaster()(x, None, known, past)


def test_the_trunk_sees_covariates_of_the_input() -> None:
    torch.manual_seed(0)
    model = drawn(Forecaster(random_trunk(16, 2, 1), length=20, horizon=4, patch=6, stride=5, past=1)).eval()
    x, _, past = batch(0, 1)
    other = past.clone()
    other[:, 0, 3] += 1
    gap = model(x, past=past) - model(x, past=other)
    assert gap.abs().min() > 0


def test_a_map_weighs_the_last_rows_and_the_rows_ahead() -> None:
    made = CovariateMap(1, 1, 20, 4, 2)
    _, known, past = batch(1, 1)
    with torch.no_grad():
        made.future.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
        made.history.copy_(torch.tensor([[1.0, 10.0, 100.0, 1000.0]] * 4))
        got = made(known, past)
    shared = known[:, 0, 18] + 10 * known[:, 0, 19] + 100 * past[:, 0, 18] + 1000 * past[:, 0, 19]
    torch.testing.assert_close(got, known[:, 0, 20:] * torch.arange(1.0, 5.0) + shared[:, None])


def windows(known: tuple[str, ...], past: tuple[str, ...], rows: int = 400) -> Windows:
    draw = np.random.default_rng(0)
    columns = {name: draw.normal(size=rows) for name in ("k", "j", "p")}
    columns["season"] = np.sin(2 * np.pi * np.arange(rows) / 6)
    values = draw.normal(size=(rows, 2)).cumsum(0) + 2 * columns["k"][:, None]
    values[rows // 2, 0] = np.nan
    split = SeriesSplit([Series("s", values, ("a", "b"), covariates=columns)])
    scaler = Scaler.fit(split)
    return Windows(
        split, 12, 4, scaler.rows_for, known=known, past=past, covariate_statistics=scaler.covariates_for
    )


def regressors(cut: Windows, rows: int) -> tuple[list[np.ndarray], np.ndarray]:
    """For each row of the forecast the columns of its own regression, the intercept last; and the targets."""
    x, y = cut.cut(np.arange(len(cut)))
    held = cut.covariates(np.arange(len(cut)))
    whole = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    assert not whole.all()
    x, y = x[whole].astype(np.float64), y[whole].astype(np.float64)
    held = {kind: part[whole] for kind, part in held.items()}
    shared = [x[:, :-1] - x[:, -1:], *(p[:, :, 12 - rows : 12].reshape(len(x), -1) for p in held.values())]
    ahead = [held["known"][:, :, 12 + row] if "known" in held else x[:, :0] for row in range(4)]
    return [np.concatenate([*shared, part, np.ones((len(x), 1))], 1) for part in ahead], y - x[:, -1:]


@pytest.mark.parametrize("ridge", [0.0, 5.0])
@pytest.mark.parametrize(
    ("known", "past", "rows"),
    [(("k",), ("p",), 3), (("k", "j"), (), 1), ((), ("p",), 12), (("k", "j"), ("p",), 0)],
)
def test_the_closed_form_solves_the_least_squares_problem_of_each_row(
    known: tuple[str, ...], past: tuple[str, ...], rows: int, ridge: float
) -> None:
    cut = windows(known, past)
    found = least_squares_with_covariates(cut, rows, ridge)
    columns, targets = regressors(cut, rows)
    for row, held in enumerate(columns):
        penalty = np.diag([ridge**0.5] * (held.shape[1] - 1) + [0.0])
        expected = np.linalg.lstsq(
            np.concatenate([held, penalty]),
            np.concatenate([targets[:, row], np.zeros(len(penalty))]),
            rcond=None,
        )[0]
        mine = [found.weight[row], found.history[row], found.future[:, row], found.bias[[row]]]
        np.testing.assert_allclose(np.concatenate(mine), expected, rtol=1e-7, atol=1e-9)


def test_a_known_covariate_that_follows_from_the_others_gets_no_weight_of_its_own() -> None:
    """A wave of the hour follows from its own last rows; what rounding leaves of it must not be fitted."""
    found = least_squares_with_covariates(windows(("k", "season"), ("p",)), 3)
    assert np.abs(found.future[1]).max() < 1e-8 and np.abs(found.history).max() < 10
    assert found.future[0].min() > 0.1
    columns, targets = regressors(windows(("k", "season"), ("p",)), 3)
    for row, held in enumerate(columns):
        best = targets[:, row] - held @ np.linalg.lstsq(held, targets[:, row], rcond=1e-6)[0]
        mine = held @ np.concatenate(
            [found.weight[row], found.history[row], found.future[:, row], found.bias[[row]]]
        )
        assert np.square(targets[:, row] - mine).sum() <= np.square(best).sum() * (1 + 1e-9)


def test_too_few_windows_for_the_covariates_are_told() -> None:
    with pytest.raises(
        DataError, match="are too few for a linear forecast from 12 rows and 37 of covariates"
    ):
        least_squares_with_covariates(windows(("k",), ("p", "j"), 40), 12)
