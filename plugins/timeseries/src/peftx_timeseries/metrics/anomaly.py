"""How well scores tell anomalous rows from normal ones.

Without a threshold (0 to 1):

    average_precision   sum over distinct scores, from the highest, of (recall gained) x (precision so far); a score
                        that knows nothing has the share of anomalous rows
    auroc               chance that an anomalous row has a higher score than a normal one, ties counting half

With a threshold t, a row being flagged where its score is above t: `precision`, `recall`, `f1` over rows, and the same
after *point adjustment* as ``precision_adjusted``, ``recall_adjusted``, ``f1_adjusted``.

Point adjustment (H. Xu et al., "Unsupervised Anomaly Detection via Variational Auto-Encoder for Seasonal KPIs in Web
Applications", WWW 2018) counts every row of a true segment as flagged as soon as one of them is. It is what most
published figures have, and it says little: S. Kim et al., "Towards a Rigorous Evaluation of Time-series Anomaly
Detection", AAAI 2022, arXiv:2109.05257, show that uniform noise beats published methods under it. So it is never what
ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from peftx_timeseries.series.marked import segments

__all__ = ["AnomalyMeter", "RowScores", "auroc", "average_precision", "curve", "point_adjusted", "rates"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
#: Pieces of time that details keep at most.
PIECES = 600


def average_precision(scores: Floats, anomalous: Bools) -> float:
    """See the module; NaN without an anomalous row."""
    hits, flagged = _steps(scores, anomalous)
    total = int(hits[-1]) if len(hits) else 0
    if not total:
        return math.nan
    gained = np.diff(hits, prepend=0) / total
    return float((gained * hits / flagged).sum())


def auroc(scores: Floats, anomalous: Bools) -> float:
    """See the module; NaN where all rows are of one sort."""
    hits, flagged = _steps(scores, anomalous)
    if not len(hits):
        return math.nan
    found = np.concatenate([[0], hits]).astype(np.float64)
    wrong = np.concatenate([[0], flagged - hits]).astype(np.float64)
    if not found[-1] or not wrong[-1]:
        return math.nan
    area = (np.diff(wrong) * (found[1:] + found[:-1]) / 2).sum()
    return float(area / (found[-1] * wrong[-1]))


def _steps(scores: Floats, anomalous: Bools) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Anomalous rows, and all rows, with at least each distinct score, from the highest on."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = (
        np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.empty(0, np.int64)
    )
    return np.cumsum(anomalous[order], dtype=np.int64)[last], last.astype(np.int64) + 1


def rates(flagged: Bools, anomalous: Bools) -> tuple[float, float, float]:
    """Precision, recall and F1, each 0 to 1; 0 where nothing was flagged, or nothing is to be found."""
    hits = int((flagged & anomalous).sum())
    taken, there = int(flagged.sum()), int(anomalous.sum())
    precision, recall = hits / taken if taken else 0.0, hits / there if there else 0.0
    return precision, recall, 2 * hits / (taken + there) if taken + there else 0.0


def point_adjusted(flagged: Bools, found: NDArray[np.int64]) -> Bools:
    """The flags after point adjustment; `found` (S, 2): true segments as `segments` gives them."""
    adjusted = flagged.copy()
    for begin, end in found:
        if flagged[begin:end].any():
            adjusted[begin:end] = True
    return adjusted


class RowScores:
    """Adds up the errors of rows over windows: a row's score is the mean over the windows it counts in.

    A window's error in a row is the mean squared difference between values and reconstruction over the channels, in the
    standardised unit, in float64.
    """

    def __init__(self) -> None:
        self._rows: list[NDArray[np.int64]] = []
        self._errors: list[Floats] = []
        self.windows = 0

    def update(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add reconstructions (B, L, M) of ``x``; ``start`` is each window's first row, of which ``skip`` do not
        count."""
        errors = (outputs.double() - batch["x"].double()).square().mean(-1).cpu().numpy()
        length = errors.shape[1]
        place = np.arange(length)
        counts = place >= batch["skip"].cpu().numpy()[:, None]
        self._rows.append((batch["start"].cpu().numpy()[:, None] + place)[counts])
        self._errors.append(errors[counts])
        self.windows += len(errors)

    def compute(self) -> tuple[NDArray[np.int64], Floats]:
        """The rows, ascending, and their scores."""
        if not self._rows:
            return np.empty(0, np.int64), np.empty(0)
        rows, place, count = np.unique(np.concatenate(self._rows), return_inverse=True, return_counts=True)
        return rows.astype(np.int64), np.bincount(place, np.concatenate(self._errors)) / count


class AnomalyMeter:
    """Scores rows by their reconstruction error and, where the batches have labels, compares the two.

    Args:
        ratio: per cent of the reference scores that are above the threshold.
        reference: scores the threshold is a percentile of; None for no threshold.
        own: whether the scores at hand are part of them, as in TSLib.
        kinds: names of the kinds of anomalies, from label 1 on.

    Batches hold what `RowScores` reads, and ``label`` and ``series`` (B, L) where the rows are labelled.
    """

    def __init__(
        self,
        ratio: float = 1.0,
        reference: Floats | None = None,
        *,
        own: bool = False,
        kinds: Sequence[str] = (),
    ) -> None:
        self.ratio, self.reference, self.own, self.kinds = ratio, reference, own, tuple(kinds)
        self._scores = RowScores()
        self._held: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]] = []

    def update(self, outputs: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch of reconstructions (B, L, M)."""
        self._scores.update(outputs, batch)
        if "label" in batch:
            rows = batch["start"].cpu()[:, None] + torch.arange(batch["label"].shape[1])
            parts = (rows, batch["label"].cpu(), batch["series"].cpu())
            self._held.append(tuple(part.reshape(-1).numpy() for part in parts))  # type: ignore[arg-type]

    def threshold(self, scores: Floats) -> float | None:
        """The (100 - ratio) percentile of the reference, in the unit of a score."""
        if self.reference is None:
            return None
        held = np.concatenate([self.reference, scores]) if self.own else self.reference
        return float(np.percentile(held, 100 - self.ratio))

    def compute(self) -> dict[str, float]:
        """The metrics of the module, `reconstruction_error`, the mean score, and `n`, the number of windows."""
        _, scores = self._scores.compute()
        found: dict[str, float] = {"reconstruction_error": float(scores.mean()) if len(scores) else math.nan}
        if self._held:
            labels, _ = self._labelled()
            anomalous = labels != 0
            whole = bool(np.isfinite(scores).all())
            found["average_precision"] = average_precision(scores, anomalous) if whole else math.nan
            found["auroc"] = auroc(scores, anomalous) if whole else math.nan
            found["anomaly_rate"] = float(anomalous.mean())
            found |= self._flagged(scores, whole)
        return found | {"n": self._scores.windows}

    def details(self) -> dict[str, Any]:
        """Scores over time in at most `PIECES` pieces (`peftx_timeseries.metrics.anomaly.curve`), the threshold, and of
        each kind of anomaly how many segments and rows were found; {} without labels."""
        _, scores = self._scores.compute()
        if not self._held or not np.isfinite(scores).all():
            return {}
        labels, owner = self._labelled()
        threshold = self.threshold(scores)
        found: dict[str, Any] = {"curve": curve(scores, labels != 0), "threshold": threshold}
        if threshold is not None:
            found["kinds"] = self._by_kind(scores > threshold, labels, segments(labels, owner))
        return {"anomaly": found}

    def _flagged(self, scores: Floats, whole: bool) -> dict[str, float]:
        threshold = self.threshold(scores)
        if threshold is None:
            return {}
        names = [f"{name}{end}" for end in ("", "_adjusted") for name in ("precision", "recall", "f1")]
        if not whole:
            return dict.fromkeys(["threshold", "flagged_rate", *names], math.nan)
        labels, owner = self._labelled()
        flagged, anomalous = scores > threshold, labels != 0
        adjusted = point_adjusted(flagged, segments(labels, owner))
        values = (*rates(flagged, anomalous), *rates(adjusted, anomalous))
        return {"threshold": threshold, "flagged_rate": float(flagged.mean())} | dict(
            zip(names, values, strict=True)
        )

    def _by_kind(
        self, flagged: Bools, labels: NDArray[np.int64], found: NDArray[np.int64]
    ) -> list[dict[str, Any]]:
        named = self.kinds or ("anomaly",)
        kinds = []
        for number, name in enumerate(named, 1):
            own = [(begin, end) for begin, end in found if labels[begin] == number]
            rows = sum(int(end - begin) for begin, end in own)
            kinds.append(
                {
                    "kind": name,
                    "segments": len(own),
                    "segments_hit": sum(bool(flagged[begin:end].any()) for begin, end in own),
                    "rows": rows,
                    "rows_flagged": sum(int(flagged[begin:end].sum()) for begin, end in own),
                }
            )
        return kinds

    def _labelled(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Label and series of each row, ascending."""
        rows, labels, owner = (np.concatenate(parts) for parts in zip(*self._held, strict=True))
        _, first = np.unique(rows, return_index=True)
        return labels[first], owner[first]


def curve(scores: Floats, anomalous: Bools) -> dict[str, list[float]]:
    """Scores over time in equal pieces: the first row of each, its highest score, and its share of anomalous rows."""
    count = min(PIECES, len(scores))
    begins = (np.arange(count) * len(scores)) // max(count, 1)
    ends = np.append(begins[1:], len(scores))
    return {
        "row": [int(begin) for begin in begins],
        "score": [float(f"{scores[a:b].max():.5g}") for a, b in zip(begins, ends, strict=True)],
        "anomalous": [float(f"{anomalous[a:b].mean():.3g}") for a, b in zip(begins, ends, strict=True)],
        "rows": [len(scores)],
    }
