"""The closed-form linear forecast with covariates among its regressors.

For each row h of the forecast of its own, with the weights of `peftx_timeseries.models.covariates`:

    y_h - x_L = W_h (x_1 - x_L, ..., x_{L-1} - x_L) + b_h + U_h (covariates of the last K rows) + V_h k(t + h)

the squared error + ridge (|W|^2 + |U|^2 + |V|^2) at its minimum over all training windows. A row needs L + K C + C_k
coefficients and not L + K C + C_k H, because of the horizon it looks at itself alone: few enough for short series.

The regressors that all rows share, s, are eliminated once, and each row is left with a system of its C_k known
covariates (a Schur complement of the normal equations, in float64):

    (G_ff - G_fs G_ss^+ G_sf) V_h = g_f - G_fs G_ss^+ g_s

A known covariate that follows from the shared regressors, such as the hour of the day from that of yesterday, has
nothing left in it, and its weight is 0: the others carry it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from peftx_timeseries.models.linear import demand_enough, least_squares, relative

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftx_timeseries.models.forecaster import Forecaster
    from peftx_timeseries.series.windows import Windows

    Floats = NDArray[np.float64]

__all__ = ["Regression", "least_squares_with_covariates", "start_linear"]

#: A covariate of which the shared regressors leave less than this fraction is one of theirs. Windows are float32: what
#: their rounding leaves of one that follows exactly is around 1e-14.
_LEFT = 1e-10
#: Samples whose products are formed at a time.
_CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Regression:
    """W (H, L - 1), b (H,), V (C_k, H) and U (H, (C_k + C_p) K); C_k, or the last dimension of U, may be 0."""

    weight: Floats
    bias: Floats
    future: Floats
    history: Floats


def least_squares_with_covariates(windows: Windows, rows: int, ridge: float = 0.0) -> Regression:
    """Return the coefficients for windows of length L > 1, `rows` of whose covariates are looked at, K <= L.

    Windows with a missing value are left out; a missing covariate is the mean of the training rows, as everywhere.

    Raises:
        DataError: there are fewer windows than unknowns of a row, and no ridge; or no whole window at all.
    """
    import numpy as np

    length, horizon = windows.length, windows.horizon
    kinds = {kind: part.shape[1] for kind, part in windows.covariates(np.arange(1)).items()}
    known = kinds.get("known", 0)
    shared = (
        length + sum(kinds.values()) * rows
    )  # L - 1 differences, the intercept, and K rows of all covariates
    gram, cross = np.zeros((shared, shared)), np.zeros((shared, horizon))
    # of the known covariates of the rows ahead, which each row has for itself
    own, mixed = np.zeros((horizon, known, known)), np.zeros((horizon, known, shared))
    own_cross = np.zeros((horizon, known))
    used = 0
    for samples, differences, targets in relative(windows, _CHUNK):
        held = windows.covariates(samples)
        before = [part[:, :, length - rows : length].reshape(len(samples), -1) for part in held.values()]
        regressors = np.concatenate([differences, *before], 1)
        gram += regressors.T @ regressors
        cross += regressors.T @ targets
        if known:
            ahead = held["known"][:, :, length:].astype(np.float64).transpose(2, 1, 0)  # (H, C_k, n)
            own += ahead @ ahead.transpose(0, 2, 1)
            mixed += ahead @ regressors
            own_cross += (ahead @ targets.T[..., None])[..., 0]
        used += len(samples)
    demand_enough(used, shared + known, length, ridge)
    penalty = np.full(shared, ridge)
    penalty[length - 1] = 0.0  # the intercept is free
    right = np.concatenate([cross, mixed.reshape(-1, shared).T], 1)
    eliminated = np.linalg.lstsq(gram + np.diag(penalty), right, rcond=None)[0].astype(np.float64)
    found, onto = eliminated[:, :horizon].copy(), eliminated[:, horizon:].reshape(shared, horizon, known)
    future = np.zeros((known, horizon))
    for row in range(horizon if known else 0):
        whole_own = own[row] + ridge * np.eye(known)
        future[:, row] = _solved(
            whole_own - mixed[row] @ onto[:, row], own_cross[row] - mixed[row] @ found[:, row], whole_own
        )
        found[:, row] -= onto[:, row] @ future[:, row]
    weight, bias = found[: length - 1].T, found[length - 1]
    return Regression(weight.copy(), bias.copy(), future, found[length:].T.copy())


def _solved(left: Floats, right: Floats, whole: Floats) -> Floats:
    """Solve a system of covariates, each measured by its own whole size, without the directions that have nothing
    left in them."""
    import numpy as np

    size = np.diag(whole)
    unit = np.sqrt(np.where(size > 0, size, 1.0))
    values, vectors = np.linalg.eigh(left / np.outer(unit, unit))
    kept = values > _LEFT
    scaled = np.where(kept, vectors.T @ (right / unit), 0.0) / np.where(kept, values, 1.0)
    solution: Floats = (vectors @ scaled) / unit
    return solution


def start_linear(model: Forecaster, windows: Windows, rows: int) -> None:
    """Give the linear forecast of a forecaster the values of the closed form, with covariates if it knows some.

    Raises:
        DataError: there are too few windows.
    """
    assert model.residual is not None
    if model.covariate_out is None:
        weight, bias = least_squares(windows)
        values = [(model.residual.weight, weight), (model.residual.bias, bias)]
    else:
        found = least_squares_with_covariates(windows, rows)
        values = [(model.residual.weight, found.weight), (model.residual.bias, found.bias)]
        for name in ("future", "history"):
            part = getattr(model.covariate_out, name)
            values += [] if part is None else [(part, getattr(found, name))]
    with torch.no_grad():
        for parameter, value in values:
            parameter.copy_(torch.from_numpy(value))
