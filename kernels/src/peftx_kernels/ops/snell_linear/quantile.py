"""The exact quantile of a map's magnitudes: what decides inside a map which entries stay.

``t = quantile_s(|V|)`` with linear interpolation, bit for bit ``torch.quantile(V.abs().flatten(), s)``. Sorting
768 x 3072 entries takes 185 ms on one core, ``torch.quantile`` 27; on a CPU a sample brackets the wanted order
statistic and only the few entries inside the bracket are ranked (3 ms). Without numpy, on other devices and under
compilers two histograms of 16 bits of the float pattern each find it, without a host read or a shape that depends on
the values.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

try:
    import numpy
except ImportError:  # torch itself does without it, too
    numpy = None  # type: ignore[assignment]

__all__ = ["magnitude_quantile", "position"]

_TILE = 1 << 17
_SAMPLE = 1 << 14


def position(sparsity: float, entries: int, dtype: torch.dtype = torch.float32) -> tuple[int, float]:
    """Return (rank from 0, weight of the rank above) of the quantile: ``s (entries - 1)`` with s rounded to dtype."""
    if dtype is not torch.float64:
        mantissa, exponent = math.frexp(sparsity)
        sparsity = math.ldexp(round(math.ldexp(mantissa, 24)), exponent - 24)
    place = sparsity * (entries - 1)
    rank = min(math.floor(place), entries - 1)
    return rank, place - rank


def magnitude_quantile(
    v: Tensor, sparsity: float | Tensor, *, smallest: bool = False, static: bool = False
) -> Tensor:
    """Return the ``sparsity``-quantile of ``|v|`` as a 0-dimensional tensor of v's dtype (float32 or float64).

    With ``smallest`` it is the ceil(sparsity N)-th smallest magnitude, and 0 for sparsity 0. NaN where v holds a NaN.
    ``static`` keeps to operations that a compiler can trace; then the sparsity may be a float64 tensor, 0-dimensional.

    Raises:
        ValueError: sparsity outside 0 .. 1, or no entry.
    """
    if isinstance(sparsity, Tensor):
        return _by_tensor(v.detach(), sparsity, smallest)
    if not 0.0 <= sparsity <= 1.0 or not v.numel():
        raise ValueError(
            f"the quantile at {sparsity} of {v.numel()} entries does not exist; expected 0 .. 1 of some"
        )
    if smallest and sparsity == 0:
        return v.new_zeros(())
    rank, weight = position(sparsity, v.numel(), v.dtype)
    if smallest:
        rank, weight = min(math.ceil(sparsity * v.numel()), v.numel()) - 1, 0.0
    if v.dtype is torch.float64:
        ordered = torch.sort(v.detach().abs().flatten()).values
        return ordered[rank].lerp(ordered[min(rank + 1, v.numel() - 1)], weight)
    if static or numpy is None or v.device.type != "cpu":
        low, high = _by_histograms(v.detach(), rank)
    else:
        low, high = _by_bracket(v.detach(), rank)
    return low.lerp(high, weight) if weight else low


def _by_tensor(v: Tensor, sparsity: Tensor, smallest: bool) -> Tensor:
    """The quantile at a sparsity that only the device knows."""
    last = v.numel() - 1
    sparsity = sparsity.to(torch.float64)
    if smallest:
        place = (sparsity * v.numel()).ceil() - 1
    else:
        place = sparsity.to(v.dtype).to(torch.float64) * last
    rank = place.floor().clamp(0, last)
    weight = (place - rank).clamp(0, 1).to(v.dtype)
    index = rank.long()
    if v.dtype is torch.float64:
        ordered = torch.sort(v.abs().flatten()).values
        low, high = ordered.gather(0, torch.stack((index, (index + 1).clamp(max=last)))).unbind()
    else:
        low, high = _by_histograms(v, index)
    # not lerp alone: nothing times an infinite neighbour is no number
    found = torch.where(weight > 0, low.lerp(high, weight), low)
    return torch.where(sparsity > 0, found, 0.0) if smallest else found


def _by_bracket(v: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The order statistics ``rank`` and ``rank + 1`` of |v|: those in a bracket that a sample gives are ranked."""
    rows = v.reshape(1, -1) if v.dim() < 2 else v.flatten(1)
    entries, width = rows.numel(), rows.shape[1]
    upper = min(rank + 1, entries - 1)
    step = max(_TILE // width, 1)
    tiles = [rows[at : at + step] for at in range(0, rows.shape[0], step)]
    buffer = rows.new_empty(min(step, rows.shape[0]), width)
    margin = 0.015
    while True:
        low, high = _bracket(v, rank / entries, margin)
        below, inside = 0, []
        for tile in tiles:
            magnitudes = torch.abs(tile, out=buffer[: tile.shape[0]]).view(-1).numpy()
            chosen = magnitudes < low
            below += int(numpy.count_nonzero(chosen))
            # neither below nor above: a NaN is inside, and is found by the check at the end
            chosen |= magnitudes > high
            numpy.logical_not(chosen, out=chosen)
            inside.append(magnitudes[numpy.flatnonzero(chosen)])
        found = numpy.concatenate(inside)
        if below <= rank and upper < below + found.size:
            break
        margin *= 8.0  # an unlucky sample; a margin past 1 brackets everything
    wanted = sorted({rank - below, upper - below})
    found.partition(wanted)
    if numpy.isnan(found).any():
        return v.new_tensor(math.nan), v.new_tensor(math.nan)
    return v.new_tensor(found[wanted[0]].item()), v.new_tensor(found[wanted[-1]].item())


def _bracket(v: Tensor, share: float, margin: float) -> tuple[Any, Any]:
    """Magnitudes between which the ``share``-quantile lies, most likely: ``margin`` is six deviations of the sample."""
    entries = v.numel()
    low, high = share - margin, share + margin
    flat = v.reshape(-1)
    # an odd stride, so that no column of the map is preferred; no random numbers are used up
    stride = max(entries // _SAMPLE, 1) | 1
    sample = numpy.sort(flat[::stride].abs().numpy())
    lowest = sample[int(low * sample.size)] if low > 0 else numpy.float32(-1.0)
    highest = sample[int(high * sample.size)] if high < 1 else numpy.float32(math.inf)
    return lowest, highest


def _by_histograms(v: Tensor, rank: int | Tensor) -> tuple[Tensor, Tensor]:
    """The order statistics ``rank`` and ``rank + 1`` of |v| from counts of the float patterns' halves."""
    magnitudes = v.abs().flatten()
    bits = magnitudes.view(torch.int32).long()  # monotone: no sign
    first, below = _bucket(bits >> 16, rank, None)
    inside = (bits >> 16) == first
    second, _ = _bucket(bits & 0xFFFF, rank - below, inside)
    pattern = ((first << 16) | second).to(torch.int32)
    low = pattern.view(torch.float32)
    not_above = (magnitudes <= low).sum()
    above = torch.where(magnitudes > low, magnitudes, math.inf).amin()
    last = rank >= v.numel() - 1
    high = torch.where((not_above > rank + 1) | last, low, above)
    broken = magnitudes.isnan().any()
    return torch.where(broken, math.nan, low), torch.where(broken, math.nan, high)


def _bucket(keys: Tensor, rank: Any, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
    """The key at ``rank`` among the chosen keys, and how many chosen keys are smaller."""
    ones = torch.ones_like(keys) if chosen is None else chosen.long()
    counts = torch.zeros(1 << 16, dtype=torch.int64, device=keys.device).scatter_add(0, keys, ones)
    up_to = counts.cumsum(0)
    bucket = (up_to <= rank).sum()
    return bucket, up_to.gather(0, bucket[None])[0] - counts.gather(0, bucket[None])[0]
