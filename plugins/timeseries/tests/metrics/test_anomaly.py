"""Scores of anomalies: against hand examples, brute force, and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peftx_timeseries.metrics.anomaly import (
    AnomalyMeter,
    RowScores,
    auroc,
    average_precision,
    curve,
    point_adjusted,
    rates,
)
from peftx_timeseries.series.marked import segments

FLAGS = st.lists(st.booleans(), min_size=1, max_size=30)


def adjusted_by_force(flagged: list[bool], true: list[bool], owner: list[int]) -> list[bool]:
    """Each true row is found if a flagged row can be reached from it over true rows of its own series."""
    found = list(flagged)
    for row, is_true in enumerate(true):
        if not is_true:
            continue
        for step in (-1, 1):
            at = row
            while 0 <= at < len(true) and true[at] and owner[at] == owner[row]:
                found[row] = found[row] or flagged[at]
                at += step
    return found


def test_point_adjustment_of_an_example() -> None:
    """The example of figure 1 in spirit: three segments, one is touched twice, one once at its end, one never."""
    true = np.array([0, 1, 1, 1, 0, 0, 1, 1, 0, 1], dtype=np.int8)
    flagged = np.array([1, 0, 1, 1, 0, 0, 0, 1, 0, 0], dtype=bool)
    assert segments(true).tolist() == [[1, 4], [6, 8], [9, 10]]
    after = point_adjusted(flagged, segments(true))
    assert after.astype(int).tolist() == [1, 1, 1, 1, 0, 0, 1, 1, 0, 0]
    assert rates(flagged, true != 0) == pytest.approx((3 / 4, 3 / 6, 6 / 10))
    assert rates(after, true != 0) == pytest.approx((5 / 6, 5 / 6, 5 / 6))
    assert flagged.astype(int).tolist() == [1, 0, 1, 1, 0, 0, 0, 1, 0, 0]  # what was given is left alone


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_point_adjustment_is_what_brute_force_says(data: st.DataObject) -> None:
    true = data.draw(FLAGS)
    flagged = data.draw(st.lists(st.booleans(), min_size=len(true), max_size=len(true)))
    border = data.draw(st.integers(0, len(true)))
    owner = [int(row >= border) for row in range(len(true))]
    found = segments(np.array(true, dtype=np.int8), np.array(owner))
    after = point_adjusted(np.array(flagged), found)
    assert after.tolist() == adjusted_by_force(flagged, true, owner)
    # it never takes a flag away, and never adds one outside the truth
    assert (after >= np.array(flagged)).all() and not (after & ~np.array(flagged) & ~np.array(true)).any()


def test_segments_end_with_their_series_and_kinds_do_not_part_them() -> None:
    labels = np.array([1, 1, 1, 2, 0, 1], dtype=np.int8)
    assert segments(labels).tolist() == [[0, 4], [5, 6]]
    assert segments(labels, np.array([0, 0, 1, 1, 1, 2])).tolist() == [[0, 2], [2, 4], [5, 6]]
    assert segments(np.zeros(3, dtype=np.int8)).shape == (0, 2)
    assert segments(np.empty(0, dtype=np.int8)).shape == (0, 2)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({true for _, true in rows}) == 2
    )
)
def test_thresholdless_scores_are_those_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, true = np.array([float(s) for s, _ in rows]), np.array([t for _, t in rows])
    assert average_precision(scores, true) == pytest.approx(metrics.average_precision_score(true, scores))
    assert auroc(scores, true) == pytest.approx(metrics.roc_auc_score(true, scores))


def test_scores_of_what_cannot_be_scored() -> None:
    scores = np.array([0.1, 0.2])
    assert math.isnan(average_precision(scores, np.zeros(2, bool)))
    assert average_precision(scores, np.ones(2, bool)) == 1.0
    assert math.isnan(auroc(scores, np.zeros(2, bool))) and math.isnan(auroc(scores, np.ones(2, bool)))
    assert rates(np.zeros(2, bool), np.zeros(2, bool)) == (0.0, 0.0, 0.0)
    assert math.isnan(auroc(np.empty(0), np.empty(0, bool)))


def test_uniform_noise_gains_by_point_adjustment_and_by_nothing_else() -> None:
    draw = np.random.default_rng(0)
    true = np.zeros(20_000, dtype=np.int8)
    for begin in range(500, 20_000, 2000):
        true[begin : begin + 200] = 1
    scores = draw.random(len(true))
    assert average_precision(scores, true != 0) == pytest.approx(0.1, abs=0.01)
    assert auroc(scores, true != 0) == pytest.approx(0.5, abs=0.02)
    flagged = scores > np.percentile(scores, 99)
    raw, adjusted = rates(flagged, true != 0), rates(point_adjusted(flagged, segments(true)), true != 0)
    assert raw[2] < 0.05 and adjusted[2] > 0.75


def batches(values: torch.Tensor, length: int, size: int) -> list[dict[str, torch.Tensor]]:
    start = torch.arange(0, len(values) - length + 1, length)
    x = torch.stack([values[begin : begin + length] for begin in start])
    skip = torch.zeros_like(start)
    return [
        {"x": x[at : at + size], "start": start[at : at + size], "skip": skip[at : at + size]}
        for at in range(0, len(x), size)
    ]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_rows_score_is_its_mean_squared_error(size: int) -> None:
    values = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    scores = RowScores()
    for batch in batches(values, 5, size):
        scores.update(torch.zeros_like(batch["x"]), batch)
    rows, found = scores.compute()
    assert rows.tolist() == list(range(30)) and scores.windows == 6
    assert found == pytest.approx(values.double().square().mean(1).numpy())


def test_rows_in_several_windows_have_the_mean_and_rows_passed_over_do_not_count() -> None:
    scores = RowScores()
    x = torch.tensor([[[1.0], [1.0], [1.0]], [[3.0], [3.0], [3.0]], [[5.0], [5.0], [5.0]]])
    batch = {"x": x, "start": torch.tensor([0, 1, 2]), "skip": torch.tensor([0, 0, 2])}
    scores.update(torch.zeros_like(x), batch)
    rows, found = scores.compute()
    assert rows.tolist() == [0, 1, 2, 3, 4]
    assert found == pytest.approx([1.0, 5.0, 5.0, 9.0, 25.0])


def test_the_threshold_is_the_percentile_of_the_reference_alone_unless_asked() -> None:
    reference, scores = np.arange(100.0), np.full(100, 1000.0)
    assert AnomalyMeter(5.0, reference).threshold(scores) == pytest.approx(np.percentile(reference, 95))
    assert AnomalyMeter(5.0, reference, own=True).threshold(scores) == 1000.0
    assert AnomalyMeter(5.0).threshold(scores) is None


def labelled(values: torch.Tensor, labels: torch.Tensor, meter: AnomalyMeter, size: int = 2) -> AnomalyMeter:
    for batch in batches(values, 5, size):
        rows = batch["start"][:, None] + torch.arange(5)
        batch |= {"label": labels[rows], "series": torch.zeros_like(rows)}
        meter.update(torch.zeros_like(batch["x"]), batch)
    return meter


def test_a_meter_names_raw_and_adjusted_rates_apart() -> None:
    values = torch.zeros(20, 1)
    values[3], values[10:13] = 2.0, torch.tensor([[1.0], [2.0], [1.0]])
    labels = torch.zeros(20, dtype=torch.int64)
    labels[10:13], labels[17] = 2, 1
    meter = labelled(values, labels, AnomalyMeter(10.0, np.array([0.0, 3.0]), kinds=("spike", "flat")))
    found = meter.compute()
    assert found["threshold"] == pytest.approx(2.7)
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((1 / 2, 1 / 4, 2 / 6))
    assert found["precision_adjusted"] == pytest.approx(3 / 4)
    assert found["recall_adjusted"] == pytest.approx(3 / 4)
    assert found["f1_adjusted"] == pytest.approx(3 / 4)
    assert found["anomaly_rate"] == pytest.approx(4 / 20) and found["flagged_rate"] == pytest.approx(2 / 20)
    assert found["n"] == 4
    kinds = meter.details()["anomaly"]["kinds"]
    assert kinds == [
        {"kind": "spike", "segments": 1, "segments_hit": 0, "rows": 1, "rows_flagged": 0},
        {"kind": "flat", "segments": 1, "segments_hit": 1, "rows": 3, "rows_flagged": 1},
    ]


def test_scores_that_are_no_numbers_give_none() -> None:
    values = torch.full((10, 1), math.nan)
    meter = labelled(values, torch.arange(10) % 2, AnomalyMeter(1.0, np.ones(3)))
    found = meter.compute()
    assert all(
        math.isnan(found[name]) for name in ("average_precision", "auroc", "f1", "f1_adjusted", "threshold")
    )
    assert meter.details() == {}


def test_a_curve_has_a_bounded_number_of_pieces_and_keeps_the_highest_scores() -> None:
    scores = np.zeros(5000)
    scores[4321] = 7.0
    found = curve(scores, scores > 0)
    assert len(found["row"]) == 600 and max(found["score"]) == 7.0 and found["rows"] == [5000]
    at = found["score"].index(7.0)
    assert found["row"][at] <= 4321 < found["row"][at + 1] and found["anomalous"][at] > 0
    assert curve(scores[:3], scores[:3] > 0)["row"] == [0, 1, 2]
