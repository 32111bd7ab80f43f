"""ROCKET: many random convolutions, of each of which two numbers are kept, and a linear classifier of those.

A kernel has 7, 9 or 11 weights for each of its channels, normal and with mean 0; a bias, uniform in [-1, 1]; a dilation
2^u with u uniform, up to the length of the sample; and is padded with zeros or is not, as a coin falls. It looks at
2^v channels, v uniform up to the logarithm of 1 + min(M, weights). Of its values over a sample are kept

    max       the largest
    ppv       the share of those above 0

A. Dempster, F. Petitjean and G. I. Webb, "ROCKET: exceptionally fast and accurate time series classification using
random convolutional kernels", Data Mining and Knowledge Discovery 34, 2020, arXiv:1910.13051; several channels as
sktime and aeon take them.
"""

from __future__ import annotations

import math
from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Rocket", "draw_kernels"]

_LENGTHS = (7, 9, 11)


class Rocket(nn.Module):
    """``(B, M, L) -> (B, C)``: features (B, 2 K) of K random kernels, then a linear layer.

    The kernels are buffers, drawn from torch's generator when it is made; the layer's values are fitted by somebody
    else. `seen` marks the steps of samples that are shorter than the others: the features are those of each sample by
    itself, whatever is padded.
    """

    weight: Tensor
    bias: Tensor
    form: Tensor

    def __init__(
        self, channels: int, length: int, classes: int, kernels: int = 1000, normalise: bool = False
    ) -> None:
        super().__init__()
        weight, bias, form = draw_kernels(kernels, channels, length)
        self.normalise = normalise
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)
        self.register_buffer("form", form)
        self.classifier = nn.Linear(2 * kernels, classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the scores of the classes."""
        return self.classifier(self.features(x, seen))

    def features(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the features (B, 2 K): the largest value of every kernel, then every share above 0. A kernel that is
        longer than a sample gives 0."""
        if seen is None:
            seen = x.new_ones(len(x), x.shape[2])
        x = torch.where(seen[:, None] > 0, x, 0.0)
        if self.normalise:
            x = _normalised(x, seen)
        ends = seen.sum(1).long()
        found = x.new_zeros(len(x), 2, len(self.bias))
        for (size, dilation, padding), numbers in self._groups().items():
            kernel = self.weight[numbers, :, :size]
            reach = (size - 1) * dilation
            if x.shape[2] + 2 * padding <= reach:
                continue
            made = F.conv1d(x, kernel, self.bias[numbers], padding=padding, dilation=dilation)
            count = (ends + 2 * padding - reach).clamp(min=0)  # (B,) values that are the sample's own
            own = torch.arange(made.shape[2], device=x.device)[None] < count[:, None]
            most = torch.where(own[:, None], made, -math.inf).amax(2)
            share = ((made > 0) & own[:, None]).sum(2) / count.clamp(min=1)[:, None]
            found[:, 0, numbers] = torch.where(count[:, None] > 0, most, 0.0)
            found[:, 1, numbers] = share.to(x.dtype)
        return found.flatten(1)

    def _groups(self) -> dict[tuple[int, int, int], list[int]]:
        """Kernels that can be convolved together, by (weights, dilation, padding); of the kernels that are there now,
        which may have been loaded."""
        groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for number, (size, dilation, padding) in enumerate(self.form.tolist()):
            groups[size, dilation, padding].append(number)
        return groups


def draw_kernels(kernels: int, channels: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw kernels from torch's generator: weights (K, M, W) with 0 for channels a kernel does not look at and behind
    its last weight, biases (K,), and whole numbers (K, 3): weights, dilation and padding of each."""
    sizes = [size for size in _LENGTHS if size <= length] or [length]
    size = torch.tensor(sizes)[torch.randint(len(sizes), (kernels,))]
    weight = torch.zeros(kernels, channels, max(sizes))
    # the longest dilation with which a kernel still fits into the sample
    most = torch.log2(torch.clamp((length - 1) / torch.clamp(size - 1, min=1), min=1.0))
    dilation = torch.pow(2.0, torch.rand(kernels) * most).floor().long()
    padding = torch.where(torch.rand(kernels) < 0.5, (size - 1) * dilation // 2, 0)
    looks = (
        torch.pow(2.0, torch.rand(kernels) * torch.log2(torch.clamp(size, max=channels) + 1.0)).floor().long()
    )
    for number in range(kernels):
        own = int(size[number])
        picked = torch.randperm(channels)[: min(int(looks[number]), channels)]
        drawn = torch.randn(len(picked), own)
        weight[number, picked, :own] = drawn - drawn.mean(1, keepdim=True)
    bias = 2 * torch.rand(kernels) - 1
    return weight, bias, torch.stack([size, dilation, padding], 1)


def _normalised(x: Tensor, seen: Tensor) -> Tensor:
    """Each channel of each sample with mean 0 and deviation 1 over its own steps; a constant one is 0."""
    own = seen[:, None]
    count = own.sum(2, keepdim=True).clamp(min=1)
    mean = (x * own).sum(2, keepdim=True) / count
    centred = (x - mean) * own
    std = (centred.square().sum(2, keepdim=True) / count).sqrt()
    return torch.where(std > 1e-6, centred / std.clamp(min=1e-6), 0.0)
