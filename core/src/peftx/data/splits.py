"""Seeded stratified draws that come out the same on every machine and with every numpy.

`numpy.random.Generator.permutation` may change between versions; the raw stream of PCG64 may not (NEP 19), so
the permutation is the stable argsort of raw draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftx.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Indices = NDArray[np.int64]
    Labels = Sequence[int] | NDArray[np.int64]

__all__ = ["limit", "permutation", "split", "stratified_order"]


def permutation(count: int, seed: int) -> Indices:
    """Return a permutation of ``0 .. count - 1`` that depends on `seed` only."""
    import numpy as np

    draws = np.random.PCG64(seed).random_raw(count)
    return np.argsort(draws, kind="stable").astype(np.int64)


def stratified_order(labels: Labels, seed: int) -> Indices:
    """Return an order of all samples whose every beginning has the class proportions of the whole.

    Sample number r (from 0, in seeded order) of a class with n samples stands at r / n; ties are broken by
    the seed. So the first C samples are one of each class, and each further beginning of length m holds ``m n
    / N`` samples of the class, to within one or two.
    """
    import numpy as np

    labels_ = np.asarray(labels, dtype=np.int64)
    shuffled = permutation(len(labels_), seed)
    places = np.empty(len(labels_), dtype=np.float64)
    for label in np.unique(labels_):
        members = shuffled[labels_[shuffled] == label]
        places[members] = np.arange(len(members)) / len(members)
    return shuffled[np.argsort(places[shuffled], kind="stable")]


def split(
    labels: Labels, fractions: Sequence[float], seed: int, classes: Sequence[str] = ()
) -> list[Indices]:
    """Draw parts of the given fractions and what is left: ``len(fractions) + 1`` ascending index arrays.

    The parts hold ``round(fraction N)`` samples each and are drawn first; the rest comes last. Raises
    DataError when a drawn part would be empty or the rest would miss a class, which `classes` names in the
    message.
    """
    import numpy as np

    labels_ = np.asarray(labels, dtype=np.int64)
    left = np.arange(len(labels_), dtype=np.int64)
    parts: list[Any] = []
    for number, fraction in enumerate(fractions):
        size = round(fraction * len(labels_))
        if not 0 < size < len(left):
            raise DataError(
                f"cannot hold out a fraction of {fraction:g} of {len(labels_)} samples; "
                f"at least one must fall in and one must stay out"
            )
        # a seed of its own for each part: the test set must not depend on how large the validation set is
        order = stratified_order(labels_[left], seed + 1_000_003 * number)
        parts.append(np.sort(left[order[:size]]))
        left = np.sort(left[order[size:]])
    lost = sorted(set(labels_.tolist()) - set(labels_[left].tolist()))
    if lost:
        name = repr(classes[lost[0]]) if classes else f"number {lost[0]}"
        held = int((labels_ == lost[0]).sum())
        raise DataError(
            f"class {name} has only {held} {'sample' if held == 1 else 'samples'}: too few to hold out "
            f"{len(fractions)} {'part' if len(fractions) == 1 else 'parts'} and leave one to train on"
        )
    return [*parts, left]


def limit(labels: Labels, count: int | None, seed: int, *, option: str = "limit_train") -> Indices:
    """Return ascending indices of a stratified draw of `count` samples; smaller draws lie inside larger ones.

    None, or more than there are, keeps all. Raises DataError when `count` is smaller than the number of
    classes.
    """
    import numpy as np

    if count is None or count >= len(labels):
        return np.arange(len(labels), dtype=np.int64)
    classes = len(set(np.asarray(labels).tolist()))
    if count < classes:
        raise DataError(f"{option} {count} is less than one sample for each of the {classes} classes")
    return np.sort(stratified_order(labels, seed)[:count])
