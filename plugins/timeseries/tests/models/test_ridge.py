"""The ridge classifier, against scikit-learn and against leaving every sample out in turn."""

from __future__ import annotations

import numpy as np
import pytest

from peftx_timeseries.models.ridge import ALPHAS, fit_ridge


def features(count: int, width: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    labels = np.arange(count) % classes
    return draw.normal(size=(count, width)) * 3 + 5 + labels[:, None] * draw.normal(size=width), labels


@pytest.mark.parametrize(("count", "width", "classes"), [(40, 12, 3), (25, 60, 4), (30, 30, 2)])
def test_it_is_the_classifier_of_scikit_learn(count: int, width: int, classes: int) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, labels = features(count, width, classes)
    found = fit_ridge(x, labels, classes)
    scaled = (x - x.mean(0)) / x.std(0)
    reference = linear.RidgeClassifierCV(alphas=ALPHAS).fit(scaled, labels)
    assert found.alpha == pytest.approx(reference.alpha_)
    made = x @ found.weight.T + found.bias
    theirs = reference.decision_function(scaled)
    # of two classes the library has one score, that of the second
    np.testing.assert_allclose(made[:, 1] if classes == 2 else made, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("width", [8, 50])
def test_the_error_of_a_sample_left_out_is_that_of_a_fit_without_it(width: int) -> None:
    x, labels = features(20, width)
    x = (x - x.mean(0)) / x.std(0)
    y = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
    for alpha, error in zip((0.1, 10.0), fit_ridge(x, labels, 3, (0.1, 10.0)).errors, strict=True):
        squares = []
        for out in range(20):
            rest = np.arange(20) != out
            # the features stay as they were scaled with all of them
            mean, shift = x[rest].mean(0), y[rest].mean(0)
            gram = (x[rest] - mean).T @ (x[rest] - mean) + alpha * np.eye(width)
            weight = np.linalg.solve(gram, (x[rest] - mean).T @ (y[rest] - shift))
            squares.append((y[out] - (x[out] - mean) @ weight - shift) ** 2)
        assert error == pytest.approx(np.mean(squares), rel=1e-8)


def test_constant_features_count_for_nothing() -> None:
    x, labels = features(30, 5)
    wider = np.column_stack([x, np.full(30, 7.0)])
    plain, more = fit_ridge(x, labels, 3), fit_ridge(wider, labels, 3)
    assert np.isfinite(more.weight).all() and np.abs(more.weight[:, 5]).max() < 1e-9
    np.testing.assert_allclose(x @ plain.weight.T + plain.bias, wider @ more.weight.T + more.bias, atol=1e-8)
