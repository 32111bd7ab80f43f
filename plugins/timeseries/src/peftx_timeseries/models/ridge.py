"""The ridge classifier, with the weight of its penalty chosen by leaving out each sample once, in closed form.

    min over W and b of sum_n |W x_n + b - y_n|^2 + alpha |W|^2        y_n: 1 for the class of sample n, -1 for others

Features are standardised by the training samples. The error of a sample that a fit did not see needs no second fit:

    e_n = (y_n - f(x_n)) / (1 - h_n),    h_n = 1/N + [X (X'X + alpha)^-1 X']_nn

and the alpha with the smallest mean of e_n^2 over samples and classes is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.int64]

__all__ = ["ALPHAS", "RidgeFit", "fit_ridge"]

#: The penalties that are tried, as in the paper of ROCKET.
ALPHAS = tuple(10.0 ** (-3 + 6 * step / 9) for step in range(10))


@dataclass(frozen=True, slots=True)
class RidgeFit:
    """Weights (C, F) and biases (C,) for features as they come, the chosen penalty, and the mean squared error of each
    that was tried."""

    weight: Floats
    bias: Floats
    alpha: float
    errors: tuple[float, ...]


def fit_ridge(features: Floats, labels: Indices, classes: int, alphas: Sequence[float] = ALPHAS) -> RidgeFit:
    """Fit the classifier to features (N, F) and class indices (N,), in float64; a feature that is constant counts for
    nothing."""
    import numpy as np

    count = len(features)
    mean, std = features.mean(0), features.std(0)
    std = np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-300), std, 1.0)
    x = (features - mean) / std
    y = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    shift = y.mean(0)
    # X = U S V', from the smaller of X X' and X' X: a decomposition of X itself takes many times longer
    if count <= x.shape[1]:
        values, u = np.linalg.eigh(x @ x.T)
    else:
        values, v = np.linalg.eigh(x.T @ x)
    # what is left of rounding is no direction: with a small penalty its inverse would be the largest of all
    kept = values > values.max(initial=0.0) * count * np.finfo(np.float64).eps
    values = values[kept]
    u = u[:, kept] if count <= x.shape[1] else x @ (v[:, kept] / np.sqrt(values))
    along = u.T @ (y - shift)
    errors = []
    for alpha in alphas:
        shrunk = values / (values + alpha)
        left = y - shift - u @ (shrunk[:, None] * along)
        leverage = 1 / count + (u**2) @ shrunk
        errors.append(float(np.mean((left / np.maximum(1 - leverage, 1e-12)[:, None]) ** 2)))
    alpha = float(alphas[int(np.argmin(errors))])
    weight = (x.T @ (u * (1 / (values + alpha)))) @ along / std[:, None]
    return RidgeFit(weight.T.copy(), shift - mean @ weight, alpha, tuple(errors))
