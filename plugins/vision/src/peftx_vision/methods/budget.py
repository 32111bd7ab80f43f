"""How many entries each map may keep: importance of thin factors, a shrinking budget, and integers that add up.

Pure functions of numbers and tensors; `methods.snella` drives them from optimizer steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Importance", "allocate", "official_budget", "step_budget"]


class Importance:
    """Smoothed sensitivity times smoothed uncertainty of one factor (AdaLoRA's, arXiv 2303.10512).

        I = |value x gradient|          I' <- b I' + (1 - b) I          U <- b U + (1 - b) |I - I'|

    with the I' just renewed. Entries whose product is not finite count as 0.
    """

    def __init__(self, like: Tensor) -> None:
        self.mean = torch.zeros_like(like, dtype=torch.float32)
        self.spread = torch.zeros_like(self.mean)

    @torch.no_grad()
    def observe(self, value: Tensor, gradient: Tensor | None, decay: float) -> None:
        """Take in one step; no gradient is a gradient of zero."""
        if gradient is None:
            now = torch.zeros_like(self.mean)
        else:
            now = (value.detach() * gradient).to(self.mean.dtype).abs_().nan_to_num_(0.0, 0.0, 0.0)
        self.mean.lerp_(now, 1 - decay)
        self.spread.lerp_(now.sub_(self.mean).abs_(), 1 - decay)

    def score(self) -> Tensor:
        """mean(I' U), 0-dimensional."""
        return torch.dot(self.mean.view(-1), self.spread.view(-1)) / self.mean.numel()


def step_budget(progress: float, initial: float, target: float, entries: int) -> int:
    """Entries all maps together may keep: from (1 - initial) to (1 - target) of `entries` along a cubic curve.

    `progress` runs from 0 to 1; from 1 on the budget is the target exactly.
    """
    first, last = (1 - initial) * entries, (1 - target) * entries
    left = (1 - min(max(progress, 0.0), 1.0)) ** 3
    # the products are meant to be whole numbers: 0.2 of 5000 must not be 999
    return math.floor(last + (first - last) * left + 1e-6)


def official_budget(
    epoch: int, epochs: int, initial: float, target: float, entries: int, warmup: int, final: int
) -> int | None:
    """The budget at the start of epoch `epoch` (from 0) as the official code has it; None for no reallocation.

    The curve ends where the last epoch would end, so the last reallocation stays a millionth above the target.
    """
    if epoch <= warmup:
        return None
    if epoch > epochs - final:
        return step_budget(1.0, initial, target, entries)
    return step_budget((epoch - warmup) / max(epochs - final - warmup, 1), initial, target, entries)


def allocate(budget: int, scores: Sequence[float], sizes: Sequence[int]) -> list[int]:
    """Divide `budget` in proportion to `scores`, never more than `sizes`; integers with the largest remainders.

    What a full map cannot take goes to the others in the same proportion. Maps without a score share by size what is
    left; without any score (at the first step, say) all do. The result adds up to min(budget, sum of sizes).

    Raises:
        ValueError: lengths that differ, or a score that is negative or not finite.
    """
    if len(scores) != len(sizes) or any(not math.isfinite(s) or s < 0 for s in scores):
        raise ValueError("every map needs one score that is finite and not negative")
    kept = [0] * len(sizes)
    left = min(budget, sum(sizes))
    for weights in (scores, sizes):
        largest = max(weights, default=0) or 1  # products of tiny scores must not vanish
        shares = [w / largest for w in weights]
        left = _share_out(left, shares, sizes, kept)
    return kept


def _share_out(left: int, shares: Sequence[float], sizes: Sequence[int], kept: list[int]) -> int:
    """Give `left` to maps with a share and room, in proportion; returns what nobody could take."""
    open_maps = [m for m, share in enumerate(shares) if share > 0 and kept[m] < sizes[m]]
    while open_maps and left > 0:
        total = math.fsum(shares[m] for m in open_maps)
        quotas = {m: left * (shares[m] / total) for m in open_maps}
        full = [m for m in open_maps if quotas[m] >= sizes[m] - kept[m]]
        if not full:
            whole = {m: math.floor(quotas[m]) for m in open_maps}
            for m, count in whole.items():
                kept[m] += count
            left -= sum(whole.values())
            # rounding of the quotas may leave more than one each: go round again until it is given out
            for m in sorted(open_maps, key=lambda m: (whole[m] - quotas[m], m))[: max(left, 0)]:
                kept[m] += 1
                left -= 1
            open_maps = [m for m in open_maps if kept[m] < sizes[m]]
            continue
        for m in full:
            left -= sizes[m] - kept[m]
            kept[m] = sizes[m]
        open_maps = [m for m in open_maps if kept[m] < sizes[m]]
    return left
