from __future__ import annotations

import torch

from peftx_kernels.ops.dora_linear import reference


def test_the_paper_equation_by_hand() -> None:
    x = torch.tensor([[2.0, 1.0]])
    weight = torch.tensor([[3.0, 3.0], [0.0, 2.0]])
    a, b = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0], [0.0]])
    # W + 1 B A = [[3, 4], [0, 2]], of row lengths 5 and 2
    y = reference.dora_linear(x, weight, torch.tensor([0.0, 1.0]), a, b, torch.tensor([10.0, 2.0]), 1.0)
    torch.testing.assert_close(y, torch.tensor([[2 * 10.0, 2.0 + 1.0]]))


def test_the_norm_is_a_constant_of_the_backward() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, 4), torch.randn(3, 4)
    a, b, magnitude = (torch.randn(s, requires_grad=True) for s in ((2, 4), (3, 2), (3,)))
    y = reference.dora_linear(x, weight, None, a, b, magnitude, 1.0)
    (got,) = torch.autograd.grad(y.sum(), b)
    norm = (weight + b @ a).norm(dim=1).detach()
    (want,) = torch.autograd.grad(((magnitude / norm) * (x @ (weight + b @ a).T)).sum(), b)
    torch.testing.assert_close(got, want)
