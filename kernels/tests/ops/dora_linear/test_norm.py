from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftx_kernels import dora_norm, row_sq, use


def error(got: Tensor, want: Tensor) -> float:
    return float(((got.double() - want) / want).abs().max())


def dense(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return (weight.double() + scale * b.double() @ a.double()).norm(dim=1)


def draw(
    out: int, width: int, rank: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(shape).to(dtype) for shape in ((out, width), (rank, width), (out, rank)))  # type: ignore[return-value]


@pytest.mark.parametrize("rank", [1, 2, 8, 24])
@pytest.mark.parametrize("scale", [0.0, 0.3, -2.0])
@pytest.mark.parametrize("shape", [(1, 5), (33, 17), (64, 130)])
def test_equals_the_dense_route(shape: tuple[int, int], scale: float, rank: int) -> None:
    weight, a, b = draw(*shape, rank)
    assert error(dora_norm(row_sq(weight), weight, a, b, scale), dense(weight, a, b, scale)) < 1e-5
    weight, a, b = weight.double(), a.double(), b.double()
    assert error(dora_norm(row_sq(weight), weight, a, b, scale), dense(weight, a, b, scale)) < 1e-12


def test_half_weights_are_summed_in_fp32() -> None:
    weight, a, b = draw(40, 96, 8, torch.bfloat16)
    norm = dora_norm(row_sq(weight), weight, a, b, 0.5)
    assert norm.dtype == torch.float32
    assert error(norm, dense(weight, a, b, 0.5)) < 1e-5
    assert error(row_sq(weight), weight.double().square().sum(1)) < 1e-5


def test_rows_the_correction_cancels() -> None:
    weight, a, b = draw(20, 64, 20)
    # b a = -weight on even rows up to one part in a thousand; the factored sum alone would be off by more than itself
    b = torch.linalg.lstsq(a.t().double(), -weight.t().double()).solution.t()
    weight = (-(b @ a.double())).float()
    weight[::2] += 1e-3 * torch.randn(10, 64)
    weight[1::2] += torch.randn(10, 64)
    b = b.float()
    exact = dense(weight, a, b, 1.0)
    assert (exact[::2] < 1e-2 * weight[::2].norm(dim=1)).all()
    assert error(dora_norm(row_sq(weight), weight, a, b, 1.0), exact) < 1e-3
    zero = torch.zeros_like(weight)
    assert (dora_norm(row_sq(zero), zero, a, 0 * b, 1.0) <= 1e-12).all()


@pytest.mark.parametrize("where", [0, 1, 2])
def test_nan_comes_out_as_nan(where: int) -> None:
    given = draw(4, 6, 2)
    given[where][0, 0] = float("nan")
    weight, a, b = given
    assert dora_norm(row_sq(weight), weight, a, b, 1.0)[0].isnan()


def test_outside_of_autograd() -> None:
    weight, a, b = (t.requires_grad_() for t in draw(4, 6, 2))
    assert not dora_norm(row_sq(weight), weight, a, b, 1.0).requires_grad
    assert not row_sq(weight).requires_grad


def test_registered_operator() -> None:
    weight, a, b = draw(12, 9, 2)
    for args in (
        (weight, a, b),
        (weight.t().contiguous().t(), a[:, ::1], b.clone()),
        (weight.bfloat16(), a, b),
    ):
        torch.library.opcheck(torch.ops.peftx.dora_norm.default, (row_sq(args[0]), *args, 0.5))


def test_the_reference_is_dense() -> None:
    use("reference")
    for dtype, bound in ((torch.float32, 1e-6), (torch.float64, 1e-12), (torch.bfloat16, 1e-6)):
        weight, a, b = draw(12, 9, 2, dtype)
        assert error(dora_norm(row_sq(weight), weight, a, b, 0.5), dense(weight, a, b, 0.5)) < bound
        assert torch.equal(dora_norm(row_sq(weight), weight, a, 0 * b, 0.5), row_sq(weight).sqrt())
    assert (dora_norm(row_sq(0 * weight), 0 * weight, a, 0 * b, 1.0) == 1e-12).all()
