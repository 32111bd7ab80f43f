from __future__ import annotations

import torch

from peftx_kernels.ops.lora_linear import reference


def test_the_paper_equation_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0]])
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    a, b = torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0], [0.0], [2.0]])
    y = reference.lora_linear(x, weight, torch.tensor([0.5, 0.0, 0.0]), a, b, 3.0)
    assert y.tolist() == [[1.5 - 3.0, 2.0, 3.0 - 6.0]]
    part = (2, 3, a, b[2:], 3.0)
    assert reference.lora_linear_slices(x, weight, None, [part]).tolist() == [[1.0, 2.0, 3.0 - 6.0]]


def test_half_inputs_are_computed_in_fp32() -> None:
    x = torch.full((1, 512), 1.0, dtype=torch.bfloat16)
    weight = torch.full((1, 512), 1.0 + 2**-7, dtype=torch.bfloat16)
    zeros = torch.zeros(1, 512), torch.zeros(1, 1)
    y = reference.lora_linear(x, weight, None, *zeros, 1.0)
    assert y.dtype == torch.bfloat16 and y.item() == 516.0
