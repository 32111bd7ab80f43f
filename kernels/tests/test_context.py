from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from peftx_kernels import dora_linear, lora_linear, snell_linear
from peftx_kernels.context import own_linear
from peftx_kernels.ops.snell_linear.part import SnellPart


def layer() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(shape) for shape in ((2, 5, 8), (6, 8), (6,), (3, 8), (6, 3)))  # type: ignore[return-value]


@pytest.mark.parametrize("lead", [(), (4,), (2, 5), (2, 3, 4)])
def test_own_linear_is_linear_and_no_view(lead: tuple[int, ...]) -> None:
    x, weight, bias = torch.randn(*lead, 8), torch.randn(6, 8), torch.randn(6)
    with torch.no_grad():
        for b in (bias, None):
            y = own_linear(x, weight, b)
            assert not y._is_view() and torch.equal(y, F.linear(x, weight, b))


@pytest.mark.parametrize("op", ["lora", "dora", "snell"])
def test_a_model_may_change_the_output_in_place(op: str) -> None:
    """relu_ after the layer, as ``nn.ReLU(inplace=True)`` does, gives the gradients of relu."""

    def gradients(in_place: bool) -> list[Tensor]:
        x, weight, bias, a, b = layer()
        for leaf in (a, b):
            leaf.requires_grad_(True)
        if op == "lora":
            y = lora_linear(x, weight, bias, a, b, 2.0)
        elif op == "dora":
            y = dora_linear(x, weight, bias, a, b, weight.norm(dim=1).requires_grad_(True), 2.0)
        else:
            y = snell_linear(x, weight, bias, [SnellPart(0, 6, a.view(1, 8, 3), b.view(1, 6, 3), 0.5)])
        (y.relu_() if in_place else y.relu()).square().sum().backward()
        assert a.grad is not None and b.grad is not None
        return [a.grad, b.grad]

    for one, two in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, two)
