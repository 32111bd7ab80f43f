"""Accuracy and mean cross-entropy, counted exactly."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["ClassificationMeter"]


class ClassificationMeter:
    """Top-1 (and, for more than five classes, top-5) accuracy in percent, and the mean cross-entropy in nats.

    ``accuracy = 100 * correct / n``. A sample counts as correct when its class has the largest logit; of
    equal logits the lowest class index wins. ``correct_top5`` counts samples with fewer than five classes ahead
    of theirs by the same order. Losses are summed in float64 over samples, so the mean does not depend on how
    they were batched.
    """

    def __init__(self, classes: int, key: str = "labels") -> None:
        self.classes = classes
        self.key = key
        self.n = 0
        self.correct = 0
        self.correct5 = 0
        self.loss_sum = 0.0

    def update(self, outputs: Tensor, batch: dict[str, Tensor]) -> None:  # outputs: (B, C)
        """Add one batch of logits; labels are int64 class indices under `key`."""
        logits, labels = outputs.float(), batch[self.key]
        own = logits.gather(1, labels[:, None])  # (B, 1)
        ahead = logits > own
        first = torch.arange(self.classes, device=labels.device)[None, :] < labels[:, None]
        rank = (ahead | ((logits == own) & first)).sum(1)  # (B,) classes ahead of the true one
        # a NaN logit compares false with everything and would count as correct
        rank = rank.masked_fill(~logits.isfinite().all(1), self.classes)
        self.n += int(labels.numel())
        self.correct += int((rank == 0).sum())
        self.correct5 += int((rank < 5).sum())
        self.loss_sum += float(cross_entropy(logits, labels, reduction="none").double().sum())

    def compute(self) -> dict[str, float]:
        """Return accuracy (%), loss (nats), and the counts n and correct; from six classes on also
        accuracy_top5 (%) and correct_top5."""
        if self.n == 0:
            raise ValueError("no samples were counted")
        scores: dict[str, float] = {
            "accuracy": 100.0 * self.correct / self.n,
            "loss": self.loss_sum / self.n,
            "n": self.n,
            "correct": self.correct,
        }
        if self.classes > 5:
            scores |= {"accuracy_top5": 100.0 * self.correct5 / self.n, "correct_top5": self.correct5}
        return scores
