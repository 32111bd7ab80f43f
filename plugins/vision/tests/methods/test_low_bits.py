from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftx_vision.methods.low_bits import codes, packed, packed_bytes, quantised, unpacked

BITS = (1, 2, 4)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def test_the_codes_of_the_card() -> None:
    assert codes(1) == pytest.approx((-0.674490, 0.674490), abs=1e-6)
    assert codes(2) == pytest.approx((-1.265720, -0.377754, 0.377754, 1.265720), abs=1e-6)
    assert (codes(2)[2] + codes(2)[3]) / 2 == pytest.approx(0.821737, abs=1e-6)
    assert len(codes(4)) == 16 and codes(4)[-1] == pytest.approx(2.265491, abs=1e-5)


@pytest.mark.parametrize("bits", BITS)
def test_the_codes_are_symmetric_ascending_and_of_least_absolute_error(bits: int) -> None:
    values = codes(bits)
    assert list(values) == sorted(set(values)) and len(values) == 2**bits
    assert [-value for value in reversed(values)] == list(values)
    normal = torch.special.ndtri((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)

    def error(levels: Tensor) -> float:
        return float((normal[:, None] - levels).abs().amin(1).mean())

    best = torch.tensor(values, dtype=torch.float64)
    for index in range(len(values)):
        for step in (-0.02, 0.02):
            moved = best.clone()
            moved[index] += step
            assert error(moved) > error(best)


def test_the_cards_worked_example() -> None:
    weight = torch.tensor([[1.0, -1, 3], [0.5, -2, 0]], dtype=torch.float64, requires_grad=True)
    made = quantised(weight, codes(1))
    high, low = 1.4134, -0.9134
    want = torch.tensor([[high, low, high], [high, low, low]], dtype=torch.float64)
    torch.testing.assert_close(made, want, rtol=0, atol=5e-5)
    made[0, 0].backward()
    grad = torch.tensor([[1.0208, -0.0347, 0.0764], [0.0069, -0.0625, -0.0069]], dtype=torch.float64)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, grad, rtol=0, atol=5e-5)


@pytest.mark.parametrize("bits", BITS)
def test_the_gradient_is_the_closed_form(bits: int) -> None:
    weight = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    given = torch.randn(5, 7, dtype=torch.float64)
    quantised(weight, codes(bits)).backward(given)
    value = weight.detach()
    z = (value - value.mean()) / value.std()
    levels = torch.tensor(codes(bits), dtype=torch.float64)
    q = levels[(z[..., None] - levels).abs().argmin(-1)]
    want = given + (given * (q - z)).sum() * z / (weight.numel() - 1)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, want, rtol=1e-4, atol=1e-4)  # up to the 1e-5 beside the deviation


@pytest.mark.parametrize("bits", BITS)
def test_codes_do_not_change_with_shift_and_size(bits: int) -> None:
    weight = torch.randn(9, 11, dtype=torch.float64)
    made = quantised(weight, codes(bits))
    torch.testing.assert_close(quantised(3 * weight + 7, codes(bits)), 3 * made + 7, rtol=0, atol=1e-9)
    assert len(made.unique()) == 2**bits


def test_more_bits_are_nearer() -> None:
    weight = torch.randn(64, 64)
    errors = [float((quantised(weight, codes(bits)) - weight).abs().mean()) for bits in (1, 2, 4, 6)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.05 * errors[0]


@pytest.mark.parametrize("shape", [(3, 4), (1, 1)])
def test_a_constant_tensor_is_itself_and_has_a_gradient(shape: tuple[int, int]) -> None:
    weight = torch.full(shape, 0.5, requires_grad=True)
    made = quantised(weight, codes(1))
    torch.testing.assert_close(made, weight.detach(), rtol=0, atol=1e-6)
    made.sum().backward()
    assert weight.grad is not None and weight.grad.isfinite().all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", [(4, 8), (3, 7), (1, 5)])
def test_packed_and_unpacked_it_is_what_acts(bits: int, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape)
    data = packed(weight, bits)
    assert len(data) == packed_bytes(weight.numel(), bits)
    assert torch.equal(unpacked(data, shape, bits), quantised(weight, codes(bits)))


def test_the_order_of_the_bits() -> None:
    """The first entry is the lowest bit of the first byte."""
    weight = torch.tensor([1.0, -1, -1, -1, -1, -1, -1, 1, 1, -1])
    assert packed(weight, 1)[:2] == bytes([0b10000001, 0b01])
    spread = torch.tensor([-9.0, -0.1, 0.1, 9.0])  # cells 0, 1, 2 and 3 of two bits
    assert packed(spread, 2)[:1] == bytes([0b11100100])
    mean, deviation = torch.frombuffer(bytearray(packed(weight, 1)[2:]), dtype=torch.float32)
    assert float(mean) == pytest.approx(-0.4) and float(deviation) == pytest.approx(float(weight.std()))
