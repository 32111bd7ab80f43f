"""Accuracy and loss: exact counts, ties, NaN, and independence of how samples are batched."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftx.evaluation import ClassificationMeter


def measure(logits: torch.Tensor, labels: torch.Tensor, size: int | None = None) -> dict[str, float]:
    meter = ClassificationMeter(logits.shape[1])
    for rows in torch.arange(len(labels)).split(size or len(labels)):
        meter.update(logits[rows], {"labels": labels[rows]})
    return meter.compute()


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
