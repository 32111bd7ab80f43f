"""Accuracy, mean cross-entropy and calibration, counted exactly."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from peftx.evaluation.calibration import ace, brier
from peftx.evaluation.reliability import Reliability, bin_confidences

__all__ = ["ClassificationMeter"]

#: A confusion matrix is C x C; beyond this many classes nobody reads it, and the file would grow large.
CONFUSION_CLASSES = 200
#: Single samples that the details name: wrong answers, and right ones of different classes.
MISTAKES, HITS = 48, 12


class ClassificationMeter:
    """Top-1 (and, for more than five classes, top-5) accuracy in percent, the mean cross-entropy in nats, and how far
    the probabilities can be trusted.

    ``accuracy = 100 * correct / n``. A sample counts as correct when its class has the largest logit; of
    equal logits the lowest class index wins. ``correct_top5`` counts samples with fewer than five classes ahead
    of theirs by the same order. Losses are summed in float64 over samples, so the mean does not depend on how
    they were batched.

    `ece`, `mce`, `ace` (fractions, 0..1) and `brier` (0..2), lower is better, are those of
    `peftx.evaluation.calibration`, with 15 bins; the same bits however the samples were batched or ordered. They need
    every probability: (N, C) float32 are kept on the CPU, 4 N C bytes, and 16 N for labels and predictions.

    A sample with a logit that is not finite is never correct and has no probabilities, which makes the four NaN.
    """

    def __init__(self, classes: int, key: str = "labels") -> None:
        self.classes = classes
        self.key = key
        self.n = 0
        self.correct = 0
        self.correct5 = 0
        self.loss_sum = 0.0
        # one entry for each batch, one for all of them once they were read
        self._probabilities: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._predicted: list[Tensor] = []  # -1 for none

    def update(self, outputs: Tensor, batch: dict[str, Tensor]) -> None:  # outputs: (B, C)
        """Add one batch of logits; labels are int64 class indices under `key`."""
        logits, labels = outputs.float(), batch[self.key]
        finite = logits.isfinite().all(1)
        own = logits.gather(1, labels[:, None])  # (B, 1)
        ahead = logits > own
        first = torch.arange(self.classes, device=labels.device)[None, :] < labels[:, None]
        rank = (ahead | ((logits == own) & first)).sum(1)  # (B,) classes ahead of the true one
        # a NaN logit compares false with everything and would count as correct
        rank = rank.masked_fill(~finite, self.classes)
        self.n += int(labels.numel())
        self.correct += int((rank == 0).sum())
        self.correct5 += int((rank < 5).sum())
        self.loss_sum += float(cross_entropy(logits, labels, reduction="none").double().sum())
        self._probabilities.append(logits.softmax(1).masked_fill(~finite[:, None], math.nan).detach().cpu())
        # the prediction is kept: logits that differ may have probabilities that do not
        self._predicted.append(logits.argmax(1).masked_fill(~finite, -1).cpu())
        self._labels.append(labels.to("cpu", copy=True))

    def compute(self) -> dict[str, float]:
        """Return accuracy (%), loss (nats), the counts n and correct, ece, mce, ace and brier; from six classes on also
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
        bins, probabilities, labels = self.reliability(), _joined(self._probabilities), _joined(self._labels)
        return scores | {
            "ece": bins.ece,
            "mce": bins.mce,
            "ace": ace(probabilities, labels),
            "brier": brier(probabilities, labels),
        }

    def reliability(self) -> Reliability:
        """Return confidence and accuracy in 15 bins of equal width."""
        predicted = _joined(self._predicted)
        confidence = _joined(self._probabilities).gather(1, predicted.clamp(min=0)[:, None])[:, 0]
        return bin_confidences(confidence, predicted == _joined(self._labels))

    def details(self) -> dict[str, Any]:
        """Return what stands behind the scores, JSON-ready.

        ``n``: samples. ``reliability``: 15 bins, as `Reliability.as_dict` has them. ``confusion``, up to 200 classes: C
        rows of C counts, row: true class, column: predicted class. ``undefined``, only if there are any: samples with a
        logit that is not finite, which are in no bin and not in the matrix. ``mistakes``: up to 48 wrong answers, the
        most confident first; ``hits``: the surest right answer of each class, up to 12, the most confident first. Each
        is ``{index, label, predicted, probability}`` with the place of the sample in the order of the batches and the
        probability of the predicted class; of equal ones the earlier sample comes first.
        """
        bins = self.reliability()
        found: dict[str, Any] = {"n": self.n, "reliability": bins.as_dict()}
        if bins.undefined:
            found["undefined"] = bins.undefined
        if self.classes <= CONFUSION_CLASSES:
            predicted, labels = _joined(self._predicted), _joined(self._labels)
            pairs = (labels * self.classes + predicted)[predicted >= 0]
            counts = torch.bincount(pairs, minlength=self.classes**2)
            found["confusion"] = counts.view(self.classes, self.classes).tolist()
        return found | self._named()

    def _named(self) -> dict[str, Any]:
        """The samples that `details` names, worked out from the (N,) probabilities of the predictions alone."""
        predicted, labels = _joined(self._predicted), _joined(self._labels)
        confidence = _joined(self._probabilities).gather(1, predicted.clamp(min=0)[:, None])[:, 0]
        order = confidence.nan_to_num(-1.0).argsort(descending=True, stable=True)
        order = order[predicted[order] >= 0]
        wrong = predicted[order] != labels[order]
        right = order[~wrong]
        # where in that order each class comes first; its length for none
        first = torch.full((self.classes,), len(right)).scatter_reduce(
            0, labels[right], torch.arange(len(right)), "amin"
        )
        surest = right[first[first < len(right)].sort().values[:HITS]]

        def told(index: int) -> dict[str, Any]:
            return {
                "index": index,
                "label": int(labels[index]),
                "predicted": int(predicted[index]),
                "probability": float(confidence[index]),
            }

        return {
            "mistakes": [told(index) for index in order[wrong][:MISTAKES].tolist()],
            "hits": [told(index) for index in surest.tolist()],
        }


def _joined(parts: list[Tensor]) -> Tensor:
    """All batches in one tensor, which takes their place in the list: nothing is held twice."""
    if len(parts) > 1:
        parts[:] = [torch.cat(parts)]
    return parts[0]
