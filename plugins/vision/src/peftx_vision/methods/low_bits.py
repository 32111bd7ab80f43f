"""Tensors of a few bits an entry: the codes, quantising in training, and their packed form."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

__all__ = ["codes", "packed", "packed_bytes", "quantised", "unpacked"]

_EPS = 1e-5
_ITERATIONS = 500


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


def _cells(z: Tensor, levels: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """(index of the nearest code, the codes); on a threshold the upper one."""
    values = torch.tensor(levels, dtype=z.dtype, device=z.device)
    return torch.bucketize(z.detach(), (values[1:] + values[:-1]) / 2, right=True), values


def quantised(weight: Tensor, levels: tuple[float, ...]) -> Tensor:
    """``q(z) sd + mu`` with z = (W - mu) / (sd + 1e-5), mu and sd of the tensor W itself, q(z) the nearest of `codes`.

    Straight through q: the gradient treats it as the identity, and mu and sd as the functions of W they are. With G
    the gradient of the result and N entries, dL/dW = G + <G, q - z> z / (N - 1), up to the 1e-5.
    """
    z, mean, deviation = _standardised(weight)
    index, values = _cells(z, levels)
    return (values[index] + (z - z.detach())) * deviation + mean


def packed_bytes(count: int, bits: int) -> int:
    """Bytes of a packed tensor of `count` entries: their bits, in whole bytes, and two float32."""
    return -(-count * bits // 8) + 8


def packed(weight: Tensor, bits: int) -> bytes:
    """The codes of W, entry i in the bits from b (i mod 8 / b) on of byte i b // 8; then mu and sd, float32.

    Little-endian, as the official code has it.
    """
    with torch.no_grad():
        z, mean, deviation = _standardised(weight.detach().cpu())
        index = _cells(z, codes(bits))[0].flatten()
        each = 8 // bits
        index = torch.nn.functional.pad(index, (0, -len(index) % each)).view(-1, each)
        octets = (index << torch.arange(0, 8, bits)).sum(1).to(torch.uint8)
        statistics = torch.stack((mean, deviation)).float()
    return octets.numpy().tobytes() + statistics.numpy().astype("<f4").tobytes()


def unpacked(data: bytes, shape: tuple[int, ...], bits: int) -> Tensor:
    """The float32 tensor that `packed` wrote, with the values `quantised` gave."""
    count = torch.Size(shape).numel()
    octets = torch.frombuffer(bytearray(data[:-8]), dtype=torch.uint8).long()
    mean, deviation = torch.frombuffer(bytearray(data[-8:]), dtype=torch.float32)
    index = (octets[:, None] >> torch.arange(0, 8, bits)) & (2**bits - 1)
    values = torch.tensor(codes(bits), dtype=torch.float32)
    return (values[index.flatten()[:count]] * deviation + mean).view(shape)
