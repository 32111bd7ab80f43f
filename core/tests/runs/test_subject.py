"""What has to be in memory before a sample can be scored."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import peftx
from peftx.runs.subject import Subject


def net(dtype: torch.dtype) -> nn.Module:
    class Net(nn.Module):
        peftx_head = "head"

        def __init__(self) -> None:
            super().__init__()
            self.body, self.norm, self.head = nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.norm(self.body(x)))

    return Net().to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_and_the_base_without_what_it_replaces(dtype: torch.dtype) -> None:
    """An owned head is kept in float32 over a base of few bits: what it replaces is not counted, it is."""
    bare = sum(t.nbytes for t in net(dtype).state_dict().values())
    head = 6 * 3 + 3
    model = net(dtype)
    subject = Subject(model, peftx.attach(model, "core.lora", targets=["body"], rank=2))
    assert subject.resident_bytes == bare - head * dtype.itemsize + head * 4 + 2 * (8 + 6) * 4
    model = net(dtype)
    whole = Subject(model, peftx.attach(model, "core.full"))
    parameters = sum(p.numel() for p in net(dtype).parameters())
    assert whole.resident_bytes == bare + parameters * (4 - dtype.itemsize)
    assert Subject(net(dtype), None).resident_bytes == bare
