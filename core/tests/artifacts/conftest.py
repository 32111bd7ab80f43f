"""A small model with a declared head, and noise for an adapter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn


class Net(nn.Module):
    """A tied table, a packed attention, a convolution's worth of kinds, and a head."""

    peftx_head = "head"

    def __init__(self, width: int = 8, classes: int = 3, blocks: int = 1) -> None:
        super().__init__()
        self.table = nn.Embedding(11, width)
        self.blocks = nn.Sequential(*(nn.Conv1d(width, width, 3, padding=1) for _ in range(blocks)))
        self.attn = nn.MultiheadAttention(width, 2, batch_first=True)
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, classes)
        self.words = nn.Linear(width, 11, bias=False)
        self.words.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.table(ids)
        x = x + self.blocks(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.attn(x, x, x)[0]
        x = self.norm(x.transpose(1, 2)).transpose(1, 2)
        return torch.cat((self.head(x), self.words(x)), -1)


@pytest.fixture
def build() -> Callable[..., Net]:
    """The same model at every call."""

    def make(**options: Any) -> Net:
        torch.manual_seed(1)
        return Net(**options).eval()

    return make


@pytest.fixture
def perturb() -> Callable[..., None]:
    """Add noise to tensors, seeded."""

    def run(tensors: Any, seed: int = 3) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for tensor in tensors:
                tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator).to(tensor))

    return run


@pytest.fixture
def ids() -> Tensor:
    """A batch of token ids."""
    return torch.randint(0, 11, (3, 5), generator=torch.Generator().manual_seed(0))
