"""Distances between all pairs of two sets of samples: step by step, and with time warped.

    euclidean    d(a, b) = sum_t |a_t - b_t|^2 over the padded length, where a sample is 0 behind its end
    dtw          d(a, b) = D(n_a, n_b)
                 D(i, j) = |a_i - b_j|^2 + min(D(i - 1, j), D(i, j - 1), D(i - 1, j - 1)),   |i - j| <= r

with |.|^2 summed over the channels, so that all of them are warped alike ("dependent" warping). The band's radius is r
= max(ceil(w max(n_a, n_b)), |n_a - n_b|) of the two samples' own lengths, of which warping needs no padding.

H. Sakoe and S. Chiba, "Dynamic programming algorithm optimization for spoken word recognition", 1978.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["dtw", "euclidean"]

#: Values of one diagonal of all pairs that are held at a time.
CHUNK = 4_000_000


def euclidean(a: Tensor, b: Tensor) -> Tensor:  # (A, M, L), (B, M, L) -> (A, B)
    """Return the squared distances, in the type of the samples."""
    a, b = a.flatten(1), b.flatten(1)
    return (_squares(a)[:, None] + _squares(b)[None] - 2 * a @ b.T).clamp(min=0)


def dtw(a: Tensor, b: Tensor, ends_a: Tensor, ends_b: Tensor, window: float) -> Tensor:
    """Return the warped distances (A, B) of samples (A, M, L) and (B, M, L), whose lengths are `ends_a` (A,) and
    `ends_b` (B,), in the type of the samples; infinite where a length is 0.

    All pairs take a step along the diagonals i + j together.
    """
    rows = max(1, CHUNK // max(1, len(b) * a.shape[2]))
    parts = [
        _warped(a[at : at + rows], b, ends_a[at : at + rows], ends_b, window) for at in range(0, len(a), rows)
    ]
    return torch.cat(parts) if parts else a.new_empty(0, len(b))


def _warped(a: Tensor, b: Tensor, ends_a: Tensor, ends_b: Tensor, window: float) -> Tensor:
    n, m = ends_a.long()[:, None], ends_b.long()[None]
    found = a.new_full((len(a), len(b)), math.inf)
    if not found.numel():
        return found
    longest_a, longest_b = int(n.max()), int(m.max())
    if not longest_a or not longest_b:
        return found
    # 1e-9: 0.1 * 30 is a little more than 3
    radius = torch.maximum((window * torch.maximum(n, m) - 1e-9).ceil().long(), (n - m).abs())
    widest = int(radius.max())
    last = torch.where((n > 0) & (m > 0), n + m - 2, -1)  # the diagonal a pair ends on
    # steps first: the products of one diagonal are then one batch of matrices
    a, b = a.permute(2, 0, 1), b.permute(2, 0, 1)
    size_a, size_b = _squares(a), _squares(b)
    # D of the two diagonals before, by i + 1; infinite outside of the band and before the first step
    shape = (longest_a + 1, *found.shape)
    before, earlier = a.new_full(shape, math.inf), a.new_full(shape, math.inf)
    earlier[0] = 0.0
    for diagonal in range(longest_a + longest_b - 1):
        first = max(0, diagonal - longest_b + 1, -((widest - diagonal) // 2))
        stop = min(longest_a - 1, diagonal, (widest + diagonal) // 2) + 1
        current = a.new_full(shape, math.inf)
        if first < stop:
            i = torch.arange(first, stop, device=a.device)
            j = diagonal - i
            cost = size_a[i][:, :, None] + size_b[j][:, None] - 2 * a[i] @ b[j].transpose(1, 2)
            best = torch.minimum(before[first:stop], before[first + 1 : stop + 1])
            best = torch.minimum(best, earlier[first:stop])
            step = cost.clamp(min=0) + best
            step = torch.where((i - j).abs()[:, None, None] > radius, math.inf, step)
            current[first + 1 : stop + 1] = step
        over = (last == diagonal).nonzero()
        if len(over):
            at_a, at_b = over.unbind(1)
            found[at_a, at_b] = current[n[at_a, 0], at_a, at_b]
        if diagonal == 0:
            earlier[0] = math.inf
        before, earlier = current, before
    return found


def _squares(x: Tensor) -> Tensor:
    return x.square().sum(-1)
