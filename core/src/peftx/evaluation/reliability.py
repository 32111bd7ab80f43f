"""Confidence against accuracy in bins of equal width: what a reliability diagram draws, and ECE and MCE sum up.

Lives apart from the other calibration metrics because a meter has confidences and hits at hand and keeps the bins
themselves for reports; the other metrics need every probability.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["BINS", "Reliability", "bin_confidences", "equal_width"]

#: Number of bins K where none is given (Guo et al. 2017).
BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """Samples in K bins of equal width by their confidence, the probability of the predicted class.

    Bin b holds confidences in ``(b / K, (b + 1) / K]``; the first one 0 as well. `count`: samples in each bin,
    `correct`: those of them whose prediction is right, `confidence_sum`: the sum of their confidences. `undefined`:
    samples without a probability (NaN), which are in no bin.
    """

    count: tuple[int, ...]  # (K,)
    correct: tuple[int, ...]  # (K,)
    confidence_sum: tuple[float, ...]  # (K,)
    undefined: int = 0

    @property
    def edges(self) -> tuple[float, ...]:  # (K + 1,)
        """Borders of the bins, from 0 to 1."""
        bins = len(self.count)
        return tuple(edge / bins for edge in range(bins + 1))

    @property
    def ece(self) -> float:
        """Expected calibration error, ``sum_b n_b / N |accuracy_b - confidence_b|``; NaN when a sample is undefined."""
        if self.undefined:
            return math.nan
        # n_b |accuracy_b - confidence_b| without its two divisions
        return math.fsum(self._gaps()) / sum(self.count)

    @property
    def mce(self) -> float:
        """Maximum calibration error, ``max_b |accuracy_b - confidence_b|`` over bins with samples; NaN as `ece`."""
        if self.undefined:
            return math.nan
        return max(gap / n for gap, n in zip(self._gaps(), self.count, strict=True) if n)

    def as_dict(self) -> dict[str, Any]:
        """Return edges, counts, mean confidences and accuracies, JSON-ready; null for the means of an empty bin."""
        return {
            "edges": list(self.edges),
            "count": list(self.count),
            "confidence": [
                total / n if n else None for total, n in zip(self.confidence_sum, self.count, strict=True)
            ],
            "accuracy": [hits / n if n else None for hits, n in zip(self.correct, self.count, strict=True)],
        }

    def _gaps(self) -> list[float]:
        return [abs(hits - total) for hits, total in zip(self.correct, self.confidence_sum, strict=True)]


def bin_confidences(confidence: Tensor, correct: Tensor, bins: int = BINS) -> Reliability:
    """Sort samples into `bins` bins of equal width.

    Args:
        confidence: (N,) probabilities of the predicted classes; NaN where there is none.
        correct: (N,) bool, whether the predictions are right.
        bins: K, at least 1.
    """
    confidence, correct = confidence.detach().cpu().double(), correct.cpu()
    defined = confidence.isfinite()
    # in ascending order, so that the sums are the same to the last bit whatever the order of the samples
    confidence, order = confidence[defined].sort()
    correct = correct[defined][order]
    place = equal_width(confidence, bins)
    return Reliability(
        count=tuple(torch.bincount(place, minlength=bins).tolist()),
        correct=tuple(torch.bincount(place[correct], minlength=bins).tolist()),
        # bincount adds one after the other: no sum is split among threads
        confidence_sum=tuple(torch.bincount(place, weights=confidence, minlength=bins).tolist()),
        undefined=int((~defined).sum()),
    )


def equal_width(values: Tensor, bins: int) -> Tensor:  # (...) float64 -> (...) int64
    """Return the bin of each value: b for ``b / K < value <= (b + 1) / K``, 0 for 0."""
    inner = torch.arange(1, bins, dtype=torch.float64) / bins
    return torch.bucketize(values, inner)
