"""Tensors of a few bits an entry: the codes, quantising in training, and their packed form."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from peftx.errors import ArtifactError

__all__ = ["codes", "packed", "packed_bytes", "quantised", "unloaded", "unpacked"]

_EPS = 1e-5
_ITERATIONS = 500
#: share of a tensor's deviation by which its mean and deviation may differ and still be those it was loaded with
_SLACK = 1e-5
#: least distance of two codes of a loaded tensor, over its mean: many roundings of float32
_APART = 1e-4


@cache
def codes(bits: int) -> tuple[float, ...]:
    """The 2^b values that stand for a standard normal one at the least mean absolute error, in ascending order.

    The k-medians of N(0, 1): thresholds in the middle between codes, codes at the medians of the cells between
    thresholds; found by repeating the two.
    """
    with torch.device("cpu"):
        steps = torch.arange(2**bits, dtype=torch.float64)
        values = torch.special.ndtri((steps + 0.5) / len(steps))
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        for _ in range(_ITERATIONS):
            inner = torch.special.ndtr((values[1:] + values[:-1]) / 2)
            edges = torch.cat((ends[:1], inner, ends[1:]))
            values = torch.special.ndtri((edges[1:] + edges[:-1]) / 2)
        return tuple((values - values.flip(0)).div(2).tolist())


def _standardised(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean = weight.mean()
    centred = weight - mean
    # at a constant tensor the root has no derivative: the floor gives it one of zero
    variance = centred.square().sum() / max(weight.numel() - 1, 1)
    deviation = variance.clamp_min(torch.finfo(weight.dtype).tiny).sqrt()
    return centred / (deviation + _EPS), mean, deviation


def unloaded(weight: Tensor) -> Tensor:
    """The origin (4, 2) of a tensor that came out of no packed file."""
    return torch.tensor(
        [[0.0, 0.0], [0.0, 1.0], [0.0, 0.0], [-1.0, -1.0]], dtype=weight.dtype, device=weight.device
    )


def _as_it_acts(
    weight: Tensor, levels: tuple[float, ...], origin: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(index of the codes, codes, z, (mean, deviation)), those of the file while the tensor is what was loaded."""
    z, mean, deviation = _standardised(weight)
    own = torch.stack((mean, deviation))
    values = torch.tensor(levels, dtype=z.dtype, device=z.device)
    edges = (values[1:] + values[:-1]) / 2
    if origin is not None:
        now = own.detach()
        seen, (offset, step), file, slack = origin.to(z.dtype)
        loaded = ((now - seen).abs() <= slack).all()
        edges = torch.where(loaded, (edges * step + (offset - now[0])) / (now[1] + _EPS), edges)
        own = torch.where(loaded, file + (own - now), own)
    # on a threshold the upper code
    return torch.bucketize(z.detach(), edges, right=True), values, z, own


def quantised(weight: Tensor, levels: tuple[float, ...], origin: Tensor | None = None) -> Tensor:
    """``q(z) sd + mu`` with z = (W - mu) / (sd + 1e-5), mu and sd of the tensor W itself, q(z) the nearest of `codes`.

    Straight through q: the gradient treats it as the identity, and mu and sd as the functions of W they are. With G
    the gradient of the result and N entries, dL/dW = G + <G, q - z> z / (N - 1), up to the 1e-5.

    With the `origin` that `unpacked` gave, a tensor that is still what it was then acts in the very values of the file.
    """
    index, values, z, own = _as_it_acts(weight, levels, origin)
    return (values[index] + (z - z.detach())) * own[1] + own[0]


def packed_bytes(count: int, bits: int, width: int = 4) -> int:
    """Bytes of a packed tensor of `count` entries: their bits, in whole bytes, and two numbers of `width` bytes."""
    return -(-count * bits // 8) + 2 * width


def packed(weight: Tensor, bits: int, origin: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The codes of W as uint8, entry i in the bits from b (i mod 8 / b) on of byte i b // 8; and (mu, sd).

    Little-endian, as the official code has it; bits behind the last entry are zero. Mean and deviation are float32, of
    a float64 tensor float64.
    """
    with torch.no_grad():
        index, _, _, statistics = _as_it_acts(weight.detach(), codes(bits), origin)
        each, flat = 8 // bits, index.flatten()
        flat = torch.nn.functional.pad(flat, (0, -len(flat) % each)).view(-1, each)
        octets = (flat << torch.arange(0, 8, bits, device=flat.device)).sum(1).to(torch.uint8)
    return octets, statistics.to(torch.promote_types(statistics.dtype, torch.float32))


def unpacked(octets: Tensor, statistics: Tensor, shape: tuple[int, ...], bits: int) -> tuple[Tensor, Tensor]:
    """(W, its origin) of what `packed` wrote: `quantised` makes the same values of it, bit for bit.

    W = step * code + offset, with mean and deviation of the file but for rounding, so that a training goes on from
    what was stored. (The stored values themselves have a smaller deviation, and would shrink each time.)

    The rows of the origin are mean and deviation of W as they come out when they are computed, by which it is known
    that W was not trained since; offset and step; mean and deviation of the file; and by how much the first may differ
    (another device may add the entries up in another order).

    Raises:
        ArtifactError: bits behind the last entry are not zero.
    """
    count, dtype = torch.Size(shape).numel(), statistics.dtype
    index = (
        (octets.long()[:, None] >> torch.arange(0, 8, bits, device=octets.device)) & (2**bits - 1)
    ).flatten()
    if index[count:].any():
        raise ArtifactError("the bits behind its last entry are not zero, so it is damaged; copy it again")
    code = torch.tensor(codes(bits), dtype=torch.float64, device=octets.device)[index[:count]]
    mean, deviation = statistics.double().unbind()
    spread = code.std() if count > 1 else code.new_zeros(())
    step = torch.where(spread > 0, deviation / spread.clamp_min(torch.finfo(spread.dtype).tiny), deviation)
    # codes stay apart where all entries are as good as equal
    step = step.maximum(_APART * mean.abs()).clamp_min(1e-30)
    offset = mean - step * code.mean()
    weight = (step * code + offset).to(dtype).view(shape)
    seen = torch.stack(_standardised(weight)[1:])
    slack = (_SLACK * (seen[1] + seen[0].abs() / 10)).expand(2)
    return weight, torch.stack((seen, torch.stack((offset, step)).to(dtype), statistics, slack))
