from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from peftx_kernels.ops.bottleneck import reference


def test_the_equation_by_hand() -> None:
    h = torch.tensor([[1.0, 3.0]])  # normalised: (-1, 1)
    down, up = torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    o = reference.bottleneck(
        h,
        down,
        up,
        down_bias=torch.tensor([0.5, -1.0]),
        up_bias=torch.tensor([10.0, 20.0]),
        residual=torch.tensor([[100.0, 200.0]]),
        scale=0.1,
        activation="relu",
        norm_weight=torch.tensor([1.0, 2.0]),
        norm_bias=torch.tensor([0.0, 1.0]),
        norm_eps=0.0,
    )
    # z = (-1, 3); u = (1.5, 8); o = r + 0.1 ((17.5, -8) + (10, 20))
    torch.testing.assert_close(o, torch.tensor([[102.75, 201.2]]))


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", F.relu),
        ("gelu", F.gelu),
        ("gelu_tanh", lambda u: F.gelu(u, approximate="tanh")),
        ("silu", F.silu),
    ],
)
def test_activations_are_torchs(activation: str, function: object) -> None:
    u = torch.linspace(-6, 6, 241, dtype=torch.float64)[:, None].requires_grad_()  # 0 among them
    one = torch.ones(1, 1, dtype=torch.float64)
    got = reference.bottleneck(u, one, one, activation=activation)
    want = function(u)  # type: ignore[operator]
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-14)
    for mine, theirs in zip(
        torch.autograd.grad(got.sum(), u), torch.autograd.grad(want.sum(), u), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)


def test_exact_and_tanh_gelu_differ() -> None:
    u, one = torch.tensor([[2.0]]), torch.ones(1, 1)
    exact = reference.bottleneck(u, one, one, activation="gelu")
    tanh = reference.bottleneck(u, one, one, activation="gelu_tanh")
    assert 5e-5 < (exact - tanh).abs() < 5e-4
