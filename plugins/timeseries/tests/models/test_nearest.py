"""The nearest neighbour: its state, its answers, and classes that have no sample."""

from __future__ import annotations

import pytest
import torch

from peftx_timeseries.models.nearest import Nearest


def filled(distance: str = "euclidean", classes: int = 3) -> Nearest:
    model = Nearest(4, 1, 5, classes, distance, 1.0)  # type: ignore[arg-type]
    with torch.no_grad():
        model.values[:3] = torch.tensor([[0.0, 0, 0, 0, 0], [1, 1, 1, 0, 0], [9, 9, 9, 9, 9]])[:, None]
        model.lengths[:3] = torch.tensor([5.0, 3, 5])
        model.labels[:3] = torch.tensor([0.0, 1, 0])
    return model


def test_the_class_of_the_nearest_sample_is_first() -> None:
    x = torch.tensor([[[0.1, 0, 0, 0, 0]], [[1, 1, 0.9, 0, 0]], [[8, 8, 8, 8, 8]]])
    with torch.no_grad():
        found = filled()(x)
    assert found.argmax(1).tolist() == [0, 1, 0] and found.isfinite().all()
    # minus the mean squared difference to the nearest of the class
    torch.testing.assert_close(found[:, 0], torch.tensor([-0.002, -(1 + 1 + 0.81) / 5, -1.0]))
    # the class without a sample is the last, and so is the place without one
    assert found.argmin(1).tolist() == [2, 2, 2]


def test_lengths_count_for_warping_and_padding_does_not() -> None:
    x, seen = torch.tensor([[[1.0, 1, 77, 77, 77]]]), torch.tensor([[1.0, 1, 0, 0, 0]])
    with torch.no_grad():
        assert float(filled("dtw")(x, seen)[0, 1]) == 0.0
        assert abs(float(filled()(x, seen)[0, 1]) + 1 / 5) < 1e-6


@pytest.mark.parametrize("distance", ["euclidean", "dtw"])
def test_before_it_is_fitted_all_classes_are_alike(distance: str) -> None:
    found = Nearest(4, 2, 6, 3, distance)(torch.randn(5, 2, 6))  # type: ignore[arg-type]
    assert torch.equal(found, torch.full((5, 3), -1.0))
