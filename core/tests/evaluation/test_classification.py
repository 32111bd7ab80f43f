"""Accuracy, loss and calibration: exact counts, ties, NaN, and independence of how samples are batched."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peftx.evaluation import ClassificationMeter, ace, brier, ece, mce


def fed(logits: torch.Tensor, labels: torch.Tensor, size: int | None = None) -> ClassificationMeter:
    meter = ClassificationMeter(logits.shape[1])
    for rows in torch.arange(len(labels)).split(size or len(labels)):
        meter.update(logits[rows], {"labels": labels[rows]})
    return meter


def measure(logits: torch.Tensor, labels: torch.Tensor, size: int | None = None) -> dict[str, float]:
    return fed(logits, labels, size).compute()


def drawn(n: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(n, classes, generator=draw), torch.randint(classes, (n,), generator=draw)


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(1, 40), st.integers(0, 2**31), st.integers(1, 40))
def test_counts_agree_with_argmax_and_topk_however_batched(
    classes: int, n: int, seed: int, size: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, classes, generator=draw)
    labels = torch.randint(classes, (n,), generator=draw)
    scores = measure(logits, labels, size)
    assert scores["n"] == n
    assert scores["correct"] == int((logits.argmax(1) == labels).sum())
    assert scores["accuracy"] == 100 * scores["correct"] / n
    if classes > 5:
        assert scores["correct_top5"] == int((logits.topk(5).indices == labels[:, None]).any(1).sum())
    else:
        assert "accuracy_top5" not in scores
    assert scores["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)


def test_equal_logits_go_to_the_lowest_class() -> None:
    assert measure(torch.zeros(3, 3), torch.tensor([0, 1, 2]))["correct"] == 1


def test_a_logit_that_is_not_finite_is_never_correct() -> None:
    scores = measure(torch.full((2, 3), math.nan), torch.tensor([0, 1]))
    assert scores["correct"] == 0
    assert math.isnan(scores["loss"])


def test_half_precision_logits_are_scored_in_single() -> None:
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    labels = torch.zeros(20, dtype=torch.int64)
    assert measure(logits, labels) == measure(logits.float(), labels)


def test_nothing_counted_is_an_error() -> None:
    with pytest.raises(ValueError, match="no samples"):
        ClassificationMeter(3).compute()


CALIBRATION = ("ece", "mce", "ace", "brier")


def test_calibration_is_that_of_the_probabilities() -> None:
    logits, labels = drawn(200, 7)
    scores, p = measure(logits, labels, 32), logits.softmax(1)
    found = {name: scores[name] for name in CALIBRATION}
    assert found == {metric.__name__: metric(p, labels) for metric in (ece, mce, ace, brier)}
    assert all(0 < value < 2 for value in found.values())


@settings(deadline=None)
@given(st.integers(2, 9), st.integers(1, 40), st.integers(0, 2**31), st.integers(1, 40))
def test_calibration_and_details_keep_every_bit_however_batched(
    classes: int, n: int, seed: int, size: int
) -> None:
    logits, labels = drawn(n, classes, seed)
    whole, parts = fed(logits, labels), fed(logits, labels, size)
    scores, others = whole.compute(), parts.compute()
    assert {name: others[name] for name in CALIBRATION} == {name: scores[name] for name in CALIBRATION}
    assert parts.details() == whole.details()


def test_scores_may_be_read_between_batches() -> None:
    logits, labels = drawn(50, 4)
    meter = fed(logits[:30], labels[:30], 10)
    assert meter.compute()["ece"] == measure(logits[:30], labels[:30])["ece"]
    meter.update(logits[30:], {"labels": labels[30:]})
    assert meter.compute()["ece"] == measure(logits, labels)["ece"]
    assert meter.details() == fed(logits, labels).details()


def test_a_batch_that_is_overwritten_does_not_change_what_was_counted() -> None:
    logits, labels = drawn(20, 3)
    meter, buffer, classes = ClassificationMeter(3), logits.clone(), labels.clone()
    meter.update(buffer, {"labels": classes})
    buffer.zero_()
    classes.zero_()
    assert meter.compute() == measure(logits, labels)


def test_details_tell_the_story_of_the_scores() -> None:
    logits, labels = drawn(300, 6)
    meter = fed(logits, labels, 64)
    scores, details = meter.compute(), meter.details()
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details.keys() == {"n", "reliability", "confusion", "mistakes", "hits"}
    assert details["n"] == 300
    bins = details["reliability"]
    assert [len(bins[key]) for key in ("edges", "count", "confidence", "accuracy")] == [16, 15, 15, 15]
    held = [
        (n, mean, share)
        for n, mean, share in zip(bins["count"], bins["confidence"], bins["accuracy"], strict=True)
        if n
    ]
    assert sum(n for n, _, _ in held) == 300 and len(held) < 15
    assert sum(n * share for n, _, share in held) == pytest.approx(scores["correct"])
    assert sum(n * abs(mean - share) for n, mean, share in held) / 300 == pytest.approx(scores["ece"])
    assert max(abs(mean - share) for _, mean, share in held) == pytest.approx(scores["mce"])
    confusion = torch.tensor(details["confusion"])
    assert int(confusion.trace()) == scores["correct"]
    assert confusion.sum(1).tolist() == torch.bincount(labels, minlength=6).tolist()
    assert confusion.sum(0).tolist() == torch.bincount(logits.argmax(1), minlength=6).tolist()


def test_rows_of_the_confusion_are_true_classes() -> None:
    logits = torch.tensor([[0.0, 5.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, 5.0]])
    confusion = fed(logits, torch.tensor([0, 1, 0])).details()["confusion"]
    assert confusion == [[0, 1, 1], [0, 1, 0], [0, 0, 0]]


def test_the_details_name_the_surest_wrong_and_right_answers() -> None:
    logits, labels = drawn(400, 30)
    logits[torch.arange(0, 400, 2), labels[::2]] += 6  # half of them are known
    details, p = fed(logits, labels, 64).details(), logits.softmax(1)
    confidence, predicted = p.max(1)
    order = sorted(range(400), key=lambda i: (-float(confidence[i]), i))
    wrong = [i for i in order if predicted[i] != labels[i]]
    right = [i for i in order if predicted[i] == labels[i]]
    firsts = [i for at, i in enumerate(right) if labels[i] not in labels[right[:at]]]
    assert len(wrong) > 48 and len(firsts) > 12
    assert [one["index"] for one in details["mistakes"]] == wrong[:48]
    assert [one["index"] for one in details["hits"]] == firsts[:12]
    for one in details["mistakes"] + details["hits"]:
        at = one["index"]
        assert (one["label"], one["predicted"]) == (int(labels[at]), int(predicted[at]))
        assert one["probability"] == float(confidence[at])


def test_of_equal_answers_the_earlier_sample_is_named() -> None:
    details = fed(torch.tensor([[2.0, 0.0]] * 4), torch.tensor([1, 0, 1, 0])).details()
    assert [one["index"] for one in details["mistakes"]] == [0, 2]
    assert [one["index"] for one in details["hits"]] == [1]


@pytest.mark.parametrize(("classes", "there"), [(200, True), (201, False)])
def test_a_confusion_matrix_up_to_two_hundred_classes(classes: int, there: bool) -> None:
    assert ("confusion" in fed(torch.zeros(1, classes), torch.tensor([0])).details()) is there


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_diverged_model_is_scored_and_its_bins_leave_those_samples_out(bad: float) -> None:
    logits, labels = drawn(10, 3)
    logits[4, 1] = bad
    meter = fed(logits, labels, 4)
    scores, details = meter.compute(), meter.details()
    assert all(math.isnan(scores[name]) for name in CALIBRATION)
    assert scores["n"] == details["n"] == 10
    assert details["undefined"] == 1
    assert sum(details["reliability"]["count"]) == 9
    confusion: Any = torch.tensor(details["confusion"])
    assert (int(confusion.sum()), int(confusion.trace())) == (9, scores["correct"])
    json.dumps(details, allow_nan=False)


def test_a_model_that_diverged_everywhere_is_scored() -> None:
    meter = fed(torch.full((4, 3), math.nan), torch.tensor([0, 1, 2, 0]))
    assert math.isnan(meter.compute()["ece"])
    details = meter.details()
    assert details["undefined"] == 4
    assert details["reliability"]["confidence"] == [None] * 15
    assert details["confusion"] == [[0] * 3] * 3
    assert details["mistakes"] == details["hits"] == []


def test_logits_too_close_for_their_probabilities_are_told_apart() -> None:
    # float32 gives both 0.5, and class 1 is ahead
    logits = torch.tensor([[0.0, 1e-9]])
    assert logits.softmax(1).unique().numel() == 1
    meter = fed(logits, torch.tensor([1]))
    assert meter.compute()["correct"] == 1
    assert meter.details()["confusion"] == [[0, 0], [0, 1]]
    assert sum(meter.reliability().correct) == 1
