from __future__ import annotations

import torch

from peftx_kernels import group_rows
from peftx_kernels.ops.grouped_lora import reference


def test_the_equation_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0], [1.0, 0.0], [0.0, 1.0]])
    weight, bias = torch.eye(2), torch.tensor([0.5, 0.0])
    first = (0, 0, 2, torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0], [2.0]]), 3.0)
    second = (1, 1, 2, torch.tensor([[0.0, 1.0], [2.0, 0.0]]), torch.tensor([[1.0, 10.0]]), 1.0)
    y = reference.grouped_lora(x, weight, bias, group_rows([0, -1, 1], 2), [first, second])
    assert y.tolist() == [[1.5 - 3.0, 2.0 - 6.0], [1.5, 0.0], [0.5, 1.0 + 1.0]]
