"""Does a probability mean what it says? Calibration errors of a classifier, and the Brier score.

All functions take probabilities (N, C), float32 or float64 (narrower ones are widened), and labels (N,), int64 class
indices below C; they return a float, lower is better. They compute on the CPU, add up in float64, and give the same
bits for every order of the samples. A NaN among the probabilities, as a diverged model gives, makes the result NaN.

The prediction is the class of the largest probability p, the lowest index among equal ones; its probability is the
confidence. Bins of equal width are those of `Reliability`. Ranges of equal count split the N samples in ascending order
of p into R ranges, the r-th from place ``floor(r N / R)`` to before place ``floor((r + 1) N / R)``: their sizes differ
by one at most, and with N < R each sample is a range of its own. **Samples of equal p share their hits**, h of m count
h / m each, so a cut through equal ones does not depend on how they happen to be stored.

All raise ValueError for shapes that do not fit, no samples, labels outside 0..C - 1, probabilities outside 0..1 (such
as logits), or fewer than one bin. docs/metrics.md compares these rules with other people's code.

Papers: Brier 1950, Verification of forecasts expressed in terms of probability. Naeini, Cooper, Hauskrecht 2015,
Obtaining well calibrated probabilities using Bayesian binning. Guo, Pleiss, Sun, Weinberger 2017, On calibration of
modern neural networks. Nixon, Dusenberry, Zhang, Jerfel, Tran 2019, Measuring calibration in deep learning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from peftx.evaluation.reliability import BINS, Reliability, bin_confidences, equal_width

__all__ = ["ace", "ace_top_label", "brier", "classwise_ece", "ece", "mce", "reliability", "tace"]

#: Entries handled at once: temporary tensors of a few dozen MiB, however many classes there are.
ENTRIES = 2**20


def reliability(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> Reliability:
    """Return confidence and accuracy in K = `bins` bins of equal width; samples with a NaN are counted apart."""
    return bin_confidences(*_top_label(*_checked(probabilities, labels, bins)), bins)


def ece(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Expected calibration error, 0..1: ``sum_b n_b / N |accuracy_b - confidence_b|`` over K bins of equal width.

    Naeini et al. 2015; Guo et al. 2017, equation 3. Empty bins add nothing.
    """
    return reliability(probabilities, labels, bins).ece


def mce(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Maximum calibration error, 0..1: ``max_b |accuracy_b - confidence_b|`` over the bins with samples.

    Naeini et al. 2015; Guo et al. 2017, equation 5. One sample alone in a bin can decide it.
    """
    return reliability(probabilities, labels, bins).mce


def classwise_ece(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Class-wise calibration error, 0..1, over K bins of equal width for each class.

    ``1 / (N C) sum_c sum_b |sum_i p_ic - n_bc|``: i runs over the samples with p_ic in bin b, n_bc of them are of class
    c. Called static calibration error (SCE) by Nixon et al. 2019.
    """
    p, y = _checked(probabilities, labels, bins)
    if not _defined(p):
        return math.nan
    errors: list[float] = []
    for values, hits in _sorted_classes(p, y):
        places = equal_width(values, bins)
        errors += _gaps(values, hits, places, bins)
    return math.fsum(errors) / p.shape[1]


def ace(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Adaptive calibration error, 0..1, over R = `bins` ranges of equal count for each class.

    ``1 / (N C) sum_c sum_r |sum_i p_ic - n_rc|``: i runs over the samples in range r of class c, n_rc of them are of
    class c. Nixon et al. 2019; a range weighs as much as it has samples, which is 1 / R where R divides N.
    """
    p, y = _checked(probabilities, labels, bins)
    if not _defined(p):
        return math.nan
    errors: list[float] = []
    for values, hits in _sorted_classes(p, y):
        errors += _equal_count(values, hits, bins)
    return math.fsum(errors) / p.shape[1]


def ace_top_label(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """Calibration error of the confidence, 0..1, over ranges of equal count: `ece` with other bins.

    ``sum_r n_r / N |accuracy_r - confidence_r|``. Not the measure of Nixon et al., which looks at every class; some
    published code gives it the name ACE all the same, HypeLoRA's (2026) among it.
    """
    p, y = _checked(probabilities, labels, bins)
    if not _defined(p):
        return math.nan
    confidence, correct = _top_label(p, y)
    values, order = confidence.double().sort()
    return _equal_count(values[None], correct[order][None], bins)[0]


def tace(probabilities: Tensor, labels: Tensor, bins: int = BINS, threshold: float = 0.01) -> float:
    """Thresholded adaptive calibration error, 0..1: `ace` over the probabilities of at least `threshold`.

    Each class has its own N_c samples and ranges, and its error is a mean over these; a class without any adds 0 to the
    mean over all C. A threshold of 0 gives `ace`. Nixon et al. 2019: the many probabilities near zero that a model of
    many classes gives would otherwise wash out its errors.
    """
    p, y = _checked(probabilities, labels, bins)
    if not _defined(p):
        return math.nan
    errors: list[float] = []
    for values, hits in _sorted_classes(p, y):
        starts = (values < threshold).sum(1).tolist()
        for row, start in enumerate(starts):
            if start < values.shape[1]:
                errors += _equal_count(values[row : row + 1, start:], hits[row : row + 1, start:], bins)
    return math.fsum(errors) / p.shape[1]


def brier(probabilities: Tensor, labels: Tensor) -> float:
    """Brier score, 0..2: ``1 / N sum_i sum_c (p_ic - [c = y_i])^2``.

    Brier 1950: the sum over all classes. For two classes it is twice the score of one probability that others
    call by the same name. It measures accuracy and calibration together; the true probabilities minimise it.
    """
    p, y = _checked(probabilities, labels, 1)
    if not _defined(p):
        return math.nan
    scores: list[float] = []
    rows = max(1, ENTRIES // p.shape[1])
    for part, own in zip(p.split(rows), y.split(rows), strict=True):
        distance = part.to(torch.float64, copy=True)
        distance[torch.arange(len(own)), own] -= 1.0
        scores += distance.square_().sum(1).tolist()
    return math.fsum(scores) / len(y)


# --- shared steps -------------------------------------------------------------------------------------------
def _checked(probabilities: Tensor, labels: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    if probabilities.dim() != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"got probabilities {tuple(probabilities.shape)} and labels {tuple(labels.shape)}, expected (N, C) and (N,)"
        )
    if not probabilities.numel():
        raise ValueError("no samples to measure")
    if bins < 1:
        raise ValueError(f"got {bins} bins, expected at least 1")
    p, y = probabilities.detach().cpu(), labels.cpu()
    if p.dtype not in (torch.float32, torch.float64):
        p = p.float()
    if bool(((p < 0) | (p > 1 + 1e-6)).any()):
        raise ValueError("got values outside 0..1, expected probabilities: apply softmax to logits first")
    if bool(((y < 0) | (y >= p.shape[1])).any()):
        raise ValueError(f"got labels from {int(y.min())} to {int(y.max())}, expected 0..{p.shape[1] - 1}")
    return p, y


def _defined(p: Tensor) -> bool:
    return not bool(p.isnan().any())


def _top_label(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:  # (N,) confidence, (N,) bool
    # max gives NaN for a row that holds one, and the first index among equal ones
    confidence, predicted = p.max(1)
    return confidence, predicted == y


def _sorted_classes(p: Tensor, y: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield probabilities (classes, N) float64, ascending in each row, and whether each sample is of the row's class.

    As many classes at once as `ENTRIES` allows.
    """
    count, classes = p.shape
    some = max(1, ENTRIES // count)
    for first in range(0, classes, some):
        # sorted before it is widened, which takes half the time
        values, order = p[:, first : first + some].T.contiguous().sort(dim=1)
        own = torch.arange(first, first + len(values))[:, None]
        yield values.double(), y[order] == own


def _equal_count(values: Tensor, hits: Tensor, bins: int) -> list[float]:  # (rows, N), (rows, N)
    """Return for each row, ascending, its mean gap over ranges of equal count."""
    rows, count = values.shape
    first = torch.ones_like(hits)  # of a block of equal values
    first[:, 1:] = values[:, 1:] != values[:, :-1]
    block = first.flatten().cumsum(0) - 1
    share = torch.bincount(block, weights=hits.flatten().double()) / torch.bincount(block)
    # place j is in range r when floor(r N / R) <= j < floor((r + 1) N / R)
    places = (torch.arange(1, count + 1) * bins - 1) // count
    return _gaps(values, share[block].view(rows, count), places.expand(rows, count), bins)


def _gaps(values: Tensor, hits: Tensor, places: Tensor, bins: int) -> list[float]:  # all (rows, N)
    """Return for each row ``1 / N sum_b |sum_i values - sum_i hits|``, i over the samples whose place is b."""
    rows, count = values.shape
    flat = (places + torch.arange(rows)[:, None] * bins).flatten()
    # bincount adds one after the other: no sum is split among threads
    sums, found = (
        torch.bincount(flat, weights=each.flatten().double(), minlength=rows * bins)
        for each in (values, hits)
    )
    return ((sums - found).abs().view(rows, bins).sum(1) / count).tolist()
