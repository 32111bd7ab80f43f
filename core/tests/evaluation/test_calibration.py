"""Calibration: against plain loops in float64, at borders and ties, and independent of the order of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peftx.evaluation import ace, ace_top_label, brier, classwise_ece, ece, mce, reliability, tace

BINNED: dict[str, Callable[..., float]] = {
    "ece": ece,
    "mce": mce,
    "classwise_ece": classwise_ece,
    "ace": ace,
    "ace_top_label": ace_top_label,
    "tace": tace,
}
ALL: dict[str, Callable[..., float]] = {**BINNED, "brier": brier}


# --- the same by plain loops ----------------------------------------------------------------------------------
def width_groups(values: list[float], bins: int) -> list[list[int]]:
    """Members of (b / K, (b + 1) / K], 0 in the first; compared as exact fractions."""
    groups: list[list[int]] = [[] for _ in range(bins)]
    for index, value in enumerate(values):
        exact = Fraction(value)
        groups[next(b for b in range(bins) if exact <= Fraction(b + 1, bins))].append(index)
    return groups


def count_groups(count: int, bins: int) -> list[range]:
    """Places of each range of equal count."""
    bins = min(bins, count)
    return [range(r * count // bins, (r + 1) * count // bins) for r in range(bins)]


def shared(values: list[float], hits: list[int]) -> tuple[list[float], list[float]]:
    """Values in ascending order, and hits where equal values share theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ascending = [values[i] for i in order]
    means = []
    for value in ascending:
        block = [hits[i] for i in order if values[i] == value]
        means.append(sum(block) / len(block))
    return ascending, means


def mean_gap(values: list[float], hits: list[float] | list[int], groups: Any) -> float:
    total = 0.0
    for group in groups:
        if len(group):
            n = len(group)
            total += n * abs(sum(hits[i] for i in group) / n - sum(values[i] for i in group) / n)
    return total / len(values)


def top(p: list[list[float]], y: list[int]) -> tuple[list[float], list[int]]:
    confidence = [max(row) for row in p]
    return confidence, [int(row.index(best) == own) for row, best, own in zip(p, confidence, y, strict=True)]


def plain(name: str, p: list[list[float]], y: list[int], bins: int, threshold: float = 0.01) -> float:
    classes = len(p[0])
    if name == "brier":
        return sum(
            sum((q - (c == own)) ** 2 for c, q in enumerate(row)) for row, own in zip(p, y, strict=True)
        ) / len(y)
    confidence, correct = top(p, y)
    if name == "ece":
        return mean_gap(confidence, correct, width_groups(confidence, bins))
    if name == "mce":
        return max(
            abs(sum(correct[i] - confidence[i] for i in group)) / len(group)
            for group in width_groups(confidence, bins)
            if group
        )
    if name == "ace_top_label":
        values, hits = shared(confidence, correct)
        return mean_gap(values, hits, count_groups(len(y), bins))
    total = 0.0
    for c in range(classes):
        values, own = [row[c] for row in p], [int(label == c) for label in y]
        if name == "classwise_ece":
            total += mean_gap(values, own, width_groups(values, bins))
            continue
        if name == "tace":
            kept = [i for i, value in enumerate(values) if value >= threshold]
            values, own = [values[i] for i in kept], [own[i] for i in kept]
        if values:
            ascending, hits = shared(values, own)
            total += mean_gap(ascending, hits, count_groups(len(values), bins))
    return total / classes


@st.composite
def cases(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Probabilities, smooth or on a coarse grid (many ties, many on borders of bins), labels, bins."""
    classes, n = draw(st.integers(2, 7)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    labels = torch.randint(classes, (n,), generator=generator)
    if draw(st.booleans()):
        scale = draw(st.sampled_from([0.0, 1.0, 8.0, 200.0]))
        logits = scale * torch.randn(n, classes, generator=generator)
        p = logits.softmax(1)
    else:
        # eight eighths among the classes
        parts = torch.randint(classes, (n, 8), generator=generator)
        p = torch.nn.functional.one_hot(parts, classes).sum(1) / 8
    if draw(st.booleans()):
        p = p.double()
    return p, labels, draw(st.sampled_from([1, 2, 4, 8, 10, 15, 64]))


@settings(deadline=None)
@given(cases(), st.sampled_from([0.0, 0.01, 0.125, 0.9]))
def test_every_metric_is_its_plain_loop(
    case: tuple[torch.Tensor, torch.Tensor, int], threshold: float
) -> None:
    p, y, bins = case
    rows, labels = p.double().tolist(), y.tolist()
    for name, metric in BINNED.items():
        options = {"threshold": threshold} if name == "tace" else {}
        expected = plain(name, rows, labels, bins, **options)
        assert metric(p, y, bins, **options) == pytest.approx(expected, rel=1e-9, abs=1e-12), name
    assert brier(p, y) == pytest.approx(plain("brier", rows, labels, bins), rel=1e-9, abs=1e-12)


@settings(deadline=None)
@given(cases(), st.integers(0, 2**31))
def test_the_order_of_the_samples_moves_no_bit(
    case: tuple[torch.Tensor, torch.Tensor, int], seed: int
) -> None:
    p, y, bins = case
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    for name, metric in BINNED.items():
        assert metric(p[order], y[order], bins) == metric(p, y, bins), name
    assert brier(p[order], y[order]) == brier(p, y)
    assert reliability(p[order], y[order], bins) == reliability(p, y, bins)


def test_the_order_of_many_samples_moves_no_bit() -> None:
    # float64 probabilities, whose sums depend on the order they are added in
    draw = torch.Generator().manual_seed(3)
    p = torch.randn(3000, 5, generator=draw, dtype=torch.float64).softmax(1)
    y = torch.randint(5, (3000,), generator=draw)
    confidence = p.max(1).values
    orders = [torch.randperm(3000, generator=draw) for _ in range(4)]
    assert len({sum(confidence[order].tolist()) for order in orders}) > 1
    for name, metric in ALL.items():
        assert len({metric(p[order], y[order]) for order in orders}) == 1, name


@settings(deadline=None)
@given(cases())
def test_ranges_and_how_the_metrics_bound_each_other(
    case: tuple[torch.Tensor, torch.Tensor, int],
) -> None:
    p, y, bins = case
    slack = 1e-9
    for name, metric in BINNED.items():
        assert 0 <= metric(p, y, bins) <= 1 + 1e-6, name
    assert 0 <= brier(p, y) <= 2 + 1e-6
    assert ece(p, y, bins) <= mce(p, y, bins) + slack
    # one bin: the least any binning can find is the gap of the means
    confidence, correct = top(p.double().tolist(), y.tolist())
    least = abs(sum(confidence) - sum(correct)) / len(y)
    assert ece(p, y, 1) == pytest.approx(least, abs=slack)
    assert mce(p, y, 1) == pytest.approx(least, abs=slack)
    assert ace_top_label(p, y, 1) == pytest.approx(least, abs=slack)
    for metric in (ece, ace_top_label):
        assert metric(p, y, bins) >= least - slack
    assert tace(p, y, bins, threshold=0.0) == ace(p, y, bins)
    assert classwise_ece(p, y, 1) == pytest.approx(ace(p, y, 1), abs=slack)


@settings(deadline=None)
@given(cases())
def test_the_bins_hold_every_sample_once(case: tuple[torch.Tensor, torch.Tensor, int]) -> None:
    p, y, bins = case
    found = reliability(p, y, bins)
    confidence, correct = top(p.double().tolist(), y.tolist())
    groups = width_groups(confidence, bins)
    assert found.edges == tuple(b / bins for b in range(bins + 1))
    assert list(found.count) == [len(group) for group in groups]
    assert list(found.correct) == [sum(correct[i] for i in group) for group in groups]
    assert list(found.confidence_sum) == pytest.approx([sum(confidence[i] for i in g) for g in groups])
    told = found.as_dict()
    for lower, upper, n, mean, accuracy in zip(
        told["edges"], told["edges"][1:], told["count"], told["confidence"], told["accuracy"], strict=False
    ):
        if n:
            assert lower - 1e-12 <= mean <= upper + 1e-6 and 0 <= accuracy <= 1
        else:
            assert mean is None and accuracy is None


# --- cases with a known answer --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ALL)
def test_a_certain_and_right_model_has_no_error(name: str) -> None:
    y = torch.tensor([0, 2, 1, 1, 0])
    assert ALL[name](torch.eye(3)[y], y) == 0


@pytest.mark.parametrize("name", ["ece", "mce", "classwise_ece", "ace", "ace_top_label", "tace"])
def test_half_certain_and_half_right_has_no_error_in_any_order(name: str) -> None:
    # sorted labels: a cut by stored order would put all hits into the same ranges
    y = torch.tensor([0] * 8 + [1] * 8)
    assert ALL[name](torch.full((16, 2), 0.5), y, 5) == pytest.approx(0, abs=1e-15)


def test_always_wrong_at_nine_tenths() -> None:
    p = torch.tensor([[0.9, 0.1]], dtype=torch.float64).repeat(20, 1)
    y = torch.ones(20, dtype=torch.int64)
    assert ece(p, y) == mce(p, y) == pytest.approx(0.9, abs=1e-14)
    assert ace_top_label(p, y) == pytest.approx(0.9, abs=1e-14)
    assert ace(p, y) == classwise_ece(p, y) == pytest.approx(0.9, abs=1e-14)
    assert brier(p, y) == pytest.approx(2 * 0.81, abs=1e-14)


def test_certain_and_wrong_is_the_worst() -> None:
    p, y = torch.eye(2)[[0, 0, 1]], torch.tensor([1, 1, 0])
    assert ece(p, y) == mce(p, y) == ace(p, y) == classwise_ece(p, y) == 1
    assert brier(p, y) == 2


def test_brier_sums_over_the_classes() -> None:
    p = torch.full((5, 4), 0.25)
    assert brier(p, torch.tensor([0, 1, 2, 3, 0])) == 0.75**2 + 3 * 0.25**2
    # two classes: twice the score of one probability
    single = torch.tensor([0.2, 0.7, 0.4], dtype=torch.float64)
    y = torch.tensor([0, 1, 1])
    assert brier(torch.stack([1 - single, single], 1), y) == pytest.approx(
        2 * float(((single - y) ** 2).mean()), rel=1e-14
    )


@pytest.mark.parametrize("name", ALL)
def test_one_sample(name: str) -> None:
    p = torch.tensor([[0.75, 0.25]])
    expected = {"brier": 2 * 0.25**2}.get(name, 0.25)
    assert ALL[name](p, torch.tensor([0])) == expected


def test_fewer_samples_than_ranges_are_a_range_each() -> None:
    p = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.875, 0.125]])
    y = torch.tensor([0, 0, 1])
    assert ace_top_label(p, y, 15) == (0.25 + 0.5 + 0.875) / 3
    assert ace(p, y, 15) == ace(p, y, 3) == (0.25 + 0.5 + 0.875) / 3


def test_a_confidence_on_a_border_is_in_the_lower_bin() -> None:
    p = torch.tensor([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]])
    found = reliability(p, torch.tensor([0, 0, 0]), bins=4)
    assert found.count == (0, 1, 1, 1)
    # the float32 next to 1/5 lies above it
    fifths = torch.tensor([[0.2] * 5])
    assert reliability(fifths, torch.tensor([0]), bins=5).count == (0, 1, 0, 0, 0)
    assert reliability(fifths.double() * 0 + 0.2, torch.tensor([0]), bins=5).count == (1, 0, 0, 0, 0)


def test_zero_is_in_the_first_bin() -> None:
    # class 1 has 0 twice: with the one hit there the gap of its first bin is 1/2
    p, y = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])
    assert classwise_ece(p, y) == 0.5


def test_equal_probabilities_at_a_cut_share_their_hits() -> None:
    # confidences 0.5 0.75 0.75 1 and a cut through the middle; of the equal two one is right
    p = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.75, 0.25], [1.0, 0.0]])
    y = torch.tensor([0, 0, 1, 0])
    assert ace_top_label(p, y, 2) == (abs(1.5 - 1.25) + abs(1.5 - 1.75)) / 4
    assert ace_top_label(p[[0, 2, 1, 3]], y[[0, 2, 1, 3]], 2) == ace_top_label(p, y, 2)


def test_the_threshold_takes_the_probabilities_from_it_on() -> None:
    p = torch.tensor([[0.75, 0.25], [0.125, 0.875]])
    y = torch.tensor([0, 0])
    # class 0 keeps 0.75 alone, class 1 keeps both
    assert tace(p, y, 15, threshold=0.25) == ((1 - 0.75) + (0.25 + 0.875) / 2) / 2
    # nothing is left of class 0 and 0.875 of class 1
    assert tace(p, y, 15, threshold=0.8) == 0.875 / 2
    assert tace(p, y, 15, threshold=0.9) == 0


def test_a_true_model_comes_out_better_the_more_is_seen() -> None:
    draw = torch.Generator().manual_seed(0)
    p = (2 * torch.randn(20000, 4, generator=draw)).softmax(1)
    y = torch.multinomial(p, 1, generator=draw)[:, 0]
    for name in ("ece", "classwise_ece", "ace", "ace_top_label", "tace"):
        few, many = BINNED[name](p[:200], y[:200]), BINNED[name](p, y)
        assert many < 0.02 and many < few / 3, name
    sharper = p**3 / (p**3).sum(1, keepdim=True)
    for name, metric in ALL.items():
        assert metric(sharper, y) > metric(p, y), name


def test_many_classes_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(1)
    p = torch.randn(30, 13, generator=draw).softmax(1)
    y = torch.randint(13, (30,), generator=draw)
    whole = {name: metric(p, y) for name, metric in ALL.items()}
    monkeypatch.setattr("peftx.evaluation.calibration.ENTRIES", 64)
    assert {name: metric(p, y) for name, metric in ALL.items()} == whole


# --- what has no answer, and what is refused --------------------------------------------------------------------
@pytest.mark.parametrize("name", ALL)
def test_a_nan_makes_the_result_nan(name: str) -> None:
    p = torch.tensor([[0.5, 0.5], [math.nan, math.nan]])
    assert math.isnan(ALL[name](p, torch.tensor([0, 1])))
    assert math.isnan(ALL[name](p[1:], torch.tensor([0])))


def test_samples_with_nan_are_in_no_bin() -> None:
    p = torch.tensor([[0.75, 0.25], [math.nan, math.nan]])
    found = reliability(p, torch.tensor([0, 0]), bins=4)
    assert (found.count, found.correct, found.undefined) == ((0, 0, 1, 0), (0, 0, 1, 0), 1)
    assert math.isnan(found.ece) and math.isnan(found.mce)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_widened(dtype: torch.dtype) -> None:
    p = torch.tensor([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])
    y = torch.tensor([0, 0, 1])
    for name, metric in ALL.items():
        assert metric(p.to(dtype), y) == metric(p, y), name


@pytest.mark.parametrize("name", ALL)
def test_what_cannot_be_measured_is_said(name: str) -> None:
    metric = ALL[name]
    with pytest.raises(ValueError, match="apply softmax"):
        metric(torch.tensor([[2.0, -1.0]]), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"got labels from 0 to 2, expected 0..1"):
        metric(torch.full((2, 2), 0.5), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"got probabilities \(2, 2\) and labels \(3,\)"):
        metric(torch.full((2, 2), 0.5), torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match="no samples"):
        metric(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    if name in BINNED:
        with pytest.raises(ValueError, match="got 0 bins"):
            metric(torch.full((2, 2), 0.5), torch.tensor([0, 1]), 0)


# --- beside other people's code -----------------------------------------------------------------------------------
class TestTorchmetrics:
    """Its bins are [lo, hi), with a further one for 1 alone; it adds up in float32."""

    @pytest.fixture
    def oracle(self) -> Any:
        reason = "torchmetrics is the oracle here; lightning brings it"
        functional = pytest.importorskip("torchmetrics.functional.classification", reason=reason)
        return functional.multiclass_calibration_error

    @pytest.mark.parametrize(("norm", "metric"), [("l1", ece), ("max", mce)])
    @pytest.mark.parametrize(("classes", "bins"), [(2, 15), (5, 10), (10, 15)])
    def test_agrees_where_no_confidence_is_on_a_border(
        self, oracle: Any, norm: str, metric: Callable[..., float], classes: int, bins: int
    ) -> None:
        draw = torch.Generator().manual_seed(classes)
        p = (2 * torch.randn(500, classes, generator=draw)).softmax(1)
        y = torch.randint(classes, (500,), generator=draw)
        assert float(p.max()) < 1
        theirs = float(oracle(p, y, num_classes=classes, n_bins=bins, norm=norm))
        assert metric(p, y, bins) == pytest.approx(theirs, abs=1e-5)

    def test_differs_at_a_confidence_of_one(self, oracle: Any) -> None:
        # ours: one bin of two, (0.5, 1]; theirs: 0.75 and 1 apart
        p, y = torch.tensor([[0.75, 0.25], [1.0, 0.0]]), torch.tensor([0, 1])
        assert ece(p, y, 2) == (1.75 - 1) / 2
        assert float(oracle(p, y, num_classes=2, n_bins=2, norm="l1")) == (0.25 + 1) / 2

    def test_differs_on_a_border(self, oracle: Any) -> None:
        # ours: 0.5 in (0, 0.5] and 0.75 above; theirs: both in [0.5, 1)
        p, y = torch.tensor([[0.5, 0.5], [0.75, 0.25]]), torch.tensor([0, 1])
        assert ece(p, y, 2) == (0.5 + 0.75) / 2
        assert float(oracle(p, y, num_classes=2, n_bins=2, norm="l1")) == pytest.approx((1.25 - 1) / 2)
