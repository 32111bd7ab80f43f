from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftx_kernels import dora_norm, row_sq, use
from peftx_kernels.ops.dora_linear import launch
from peftx_kernels.ops.dora_linear.launch import dora_lengths
from peftx_kernels.ops.lora_linear import calls

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16


def error(got: Tensor, want: Tensor) -> float:
    return float(((got.double() - want) / want).abs().max())


def dense(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return (weight.double() + scale * b.double() @ a.double()).norm(dim=1)


def draw(
    out: int, width: int, rank: int, weight: torch.dtype = F32, factor: torch.dtype = F32
) -> tuple[Tensor, Tensor, Tensor]:
    w, a, b = torch.randn(out, width), torch.randn(rank, width), torch.randn(out, rank)
    return w.to(weight), (a * width**-0.5).to(factor), b.to(factor)


def off(given: tuple[Tensor, Tensor, Tensor], scale: float) -> float:
    weight, a, b = given
    norm = dora_norm(row_sq(weight), weight, a, b, scale)
    assert norm.dtype == F32 and norm.shape == weight.shape[:1]
    return error(norm, dense(weight, a, b, scale))


SHAPES = [(1, 5, 1), (33, 17, 2), (65, 130, 24), (144, 272, 16), (257, 63, 8), (20, 32, 384)]


@pytest.mark.parametrize("types", [(F32, F32), (BF16, BF16), (BF16, F32), (F16, F16), (F16, F32)], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_dense_route(
    shape: tuple[int, int, int], types: tuple[torch.dtype, torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_multiprocessors", lambda device: 8)  # several shares of the width
    for scale in (0.7,) if shape[2] > 100 else (0.7, -2.0):
        assert off(draw(*shape, *types), scale) < 1e-5


def test_other_types_and_strides() -> None:
    for types in ((F32, BF16), (BF16, F16), (F16, BF16)):
        assert off(draw(20, 48, 5, *types), 0.7) < 1e-5
    for dtype in (F32, BF16):
        _, a, b = draw(64, 96, 8, dtype, dtype)
        for weight in (
            torch.randn(96, 64, dtype=dtype).t(),
            torch.randn(64, 200, dtype=dtype)[:, 3:99],
            torch.randn(128, 96, dtype=dtype)[::2],
            torch.randn(64, 192, dtype=dtype)[:, ::2],
        ):
            assert off((weight, a.t().contiguous().t(), b.t().contiguous().t()), 0.7) < 1e-5


def test_no_correction_is_exactly_the_base() -> None:
    for dtype in (F32, BF16):
        weight, a, b = draw(40, 64, 8, dtype)
        for factor, scale in ((0 * b, 1.0), (b, 0.0)):
            assert torch.equal(dora_norm(row_sq(weight), weight, a, factor, scale), row_sq(weight).sqrt())


@pytest.mark.parametrize("dtype", [F32, BF16], ids=str)
def test_rows_the_correction_cancels(dtype: torch.dtype) -> None:
    """b a / 2 = -weight on every third row but for one part in a thousand: the sum is below the error of the terms."""
    width, rank = 70, 40
    _, a, b = draw(50, width, rank)
    weight = -(0.5 * b.double() @ a.double()).to(dtype)
    weight[1::3] += 5e-4 * torch.randn(17, width).to(dtype)
    weight[2::3] += torch.randn(16, width).to(dtype)
    exact = dense(weight, a, b, 0.5)
    short = exact < 1e-2 * weight.double().norm(dim=1)
    assert short.sum() > 10 and not short.all()
    norm = dora_norm(row_sq(weight), weight, a, b, 0.5)
    # what is left of such a row is itself the rounding of the product b a
    assert error(norm[exact > 5e-5], exact[exact > 5e-5]) < 1e-2
    assert error(norm[~short], exact[~short]) < 1e-5
    assert (norm[exact < 5e-5] < 5e-5).all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "CANCELLED", 0.0)
        without = dora_norm(row_sq(weight), weight, a, b, 0.5)
    assert not torch.allclose(without[short], norm[short], rtol=1e-2)


def test_zero_rows_and_zero_matrices() -> None:
    weight, a, b = draw(20, 64, 20)
    assert (dora_norm(row_sq(0 * weight), 0 * weight, a, 0 * b, 1.0) == 1e-12).all()
    assert off((0 * weight, a, b), 0.5) < 1e-5
    weight[3] = 0
    assert off((weight, a, b), 0.5) < 1e-5


@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("types", [(F32, F32), (BF16, F32)], ids=str)
def test_nan_comes_out_as_nan(where: int, types: tuple[torch.dtype, torch.dtype]) -> None:
    given = draw(4, 6, 2, *types)
    given[where][0, 0] = float("nan")
    weight, a, b = given
    norm = dora_norm(row_sq(weight), weight, a, b, 1.0)
    assert norm[0].isnan() and norm[1:].isnan().any() == (where == 1)


def test_outside_of_autograd_and_other_tiers() -> None:
    weight, a, b = (t.requires_grad_() for t in draw(9, 16, 2))
    norm = dora_norm(row_sq(weight), weight, a, b, 1.0)
    assert not norm.requires_grad and not row_sq(weight).requires_grad
    for tier in ("eager", "reference"):
        use(tier)
        torch.testing.assert_close(dora_norm(row_sq(weight), weight, a, b, 1.0), norm)
    use("triton")
    double = [t.detach().double() for t in (weight, a, b)]
    assert error(dora_norm(row_sq(double[0]), *double, 1.0), dense(*double, 1.0)) < 1e-12


def test_the_same_bits_every_time() -> None:
    weight, a, b = draw(70, 130, 24, BF16)
    base = row_sq(weight)
    assert torch.equal(dora_norm(base, weight, a, b, 1.0), dora_norm(base, weight, a, b, 1.0))


def test_torch_accepts_the_operation() -> None:
    weight, a, b = draw(12, 16, 2)
    for given in ((weight, a, b), (weight.t().contiguous().t(), a[:, ::1], b), (weight.bfloat16(), a, b)):
        torch.library.opcheck(dora_lengths.registered, (row_sq(given[0]), *given, 0.5))


def test_compiled_it_measures_anew() -> None:
    weight, a, b = draw(9, 16, 2)
    base = row_sq(weight)
    compiled = torch.compile(
        lambda: dora_norm(base, weight, a, b, 1.0) * 2, fullgraph=True, backend="aot_eager"
    )
    for _ in range(2):
        assert torch.equal(compiled(), 2 * dora_norm(base, weight, a, b, 1.0))
        b *= 2
