"""How A starts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import peftx


@pytest.mark.parametrize("rank", [2, 64])
def test_the_start_may_hold_the_rank_or_not(rank: int) -> None:
    """PEFT's gaussian start shrinks with the rank, which takes rank-stabilised scaling its point."""
    spread = {}
    for init in ("kaiming", "normal", "gaussian"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4096, 64))
        adapted = peftx.attach(model, "core.rslora", targets=["glob:*"], rank=rank, init=init, also_train=[])
        spread[init] = float(adapted.tensors()["0", "A"].std())
    assert spread["kaiming"] == pytest.approx(1 / (3 * 4096) ** 0.5, rel=0.03)
    assert spread["normal"] == pytest.approx(1 / (3 * 4096) ** 0.5, rel=0.03)
    assert spread["gaussian"] == pytest.approx(1 / rank, rel=0.03)


def test_a_normal_start_of_a_convolution_counts_its_kernel() -> None:
    model = nn.Sequential(nn.Conv2d(64, 32, 3))
    adapted = peftx.attach(model, "core.lora", targets=["glob:*"], init="normal", also_train=[])
    assert float(adapted.tensors()["0", "A"].std()) == pytest.approx(1 / (3 * 64 * 9) ** 0.5, rel=0.05)
