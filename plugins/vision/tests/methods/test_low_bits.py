from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftx.errors import ArtifactError
from peftx_vision.methods.low_bits import codes, packed, packed_bytes, quantised, unloaded, unpacked

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


def one_hot() -> Tensor:
    weight = torch.zeros(300)
    weight[7] = 1.0
    return weight


TENSORS = {
    "normal": lambda: torch.randn(24, 32),
    "odd": lambda: torch.randn(3, 7),
    "small": lambda: 1e-3 * torch.randn(16, 5),
    "shifted": lambda: 5 + 0.01 * torch.randn(9, 11),
    "heavy": lambda: torch.randn(40, 10) ** 5,
    "skewed": lambda: torch.randn(500).exp(),
    "uniform": lambda: torch.rand(17, 3) - 0.5,
    "two values": lambda: torch.randn(13, 3).sign() + 0.1,
    "one hot": one_hot,
    "constant": lambda: torch.full((4, 5), 0.3),
    "large constant": lambda: torch.full((7,), -1234.5),
    "zero": lambda: torch.zeros(6),
    "one": lambda: torch.full((1,), 2.0),
    "nearly constant": lambda: 1 + 1e-6 * torch.randn(64),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("name", TENSORS)
def test_unpacked_it_is_what_acts_and_packs_again_to_the_same_bits(
    name: str, bits: int, dtype: torch.dtype
) -> None:
    weight = TENSORS[name]().to(dtype)
    octets, statistics = packed(weight, bits, unloaded(weight))
    assert octets.dtype == torch.uint8 and statistics.dtype == dtype
    assert octets.nbytes + statistics.nbytes == packed_bytes(weight.numel(), bits, dtype.itemsize)
    again, origin = unpacked(octets, statistics, tuple(weight.shape), bits)
    assert again.dtype == origin.dtype == dtype and again.shape == weight.shape
    assert torch.equal(quantised(again, codes(bits), origin), quantised(weight, codes(bits)))
    twice = packed(again, bits, origin)
    assert torch.equal(twice[0], octets) and torch.equal(twice[1], statistics)


@pytest.mark.parametrize("bits", BITS)
def test_a_training_goes_on_from_the_stored_values(bits: int) -> None:
    """What was loaded is quantised as before once it moves; the values themselves would shrink, at 1 bit by a third."""
    weight = torch.randn(64, 48) * 0.02 + 0.001
    acts = quantised(weight, codes(bits))
    again, origin = unpacked(*packed(weight, bits), tuple(weight.shape), bits)
    torch.testing.assert_close(quantised(again, codes(bits)), acts, rtol=1e-4, atol=1e-7)
    assert float(quantised(acts, codes(bits)).std()) < 0.999 * float(acts.std())
    given, grads = torch.randn_like(again), []
    for own in (origin, unloaded(again)):
        leaf = again.clone().requires_grad_()
        quantised(leaf, codes(bits), own).backward(given)
        assert leaf.grad is not None
        grads.append(leaf.grad)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-4)
    moved = again + 1e-3 * torch.randn_like(again)
    assert torch.equal(quantised(moved, codes(bits), origin), quantised(moved, codes(bits)))
    # another device adds the entries up in another order
    rounded = again * (1 + 1e-7)
    index, before = packed(rounded, bits, origin)[0], packed(again, bits, origin)[0]
    assert torch.equal(index, before) and torch.equal(packed(rounded, bits, origin)[1], origin[2])


def test_a_tensor_that_is_not_finite_stays_so() -> None:
    for value in (torch.nan, torch.inf):
        weight = torch.randn(8)
        weight[3] = value
        again, origin = unpacked(*packed(weight, 1), (8,), 1)
        assert quantised(again, codes(1), origin).isnan().all() and quantised(weight, codes(1)).isnan().all()


def test_the_order_of_the_bits() -> None:
    """The first entry is the lowest bit of the first byte, and what is left of the last one is zero."""
    weight = torch.tensor([1.0, -1, -1, -1, -1, -1, -1, 1, 1, -1])
    octets, statistics = packed(weight, 1)
    assert octets.tolist() == [0b10000001, 0b01]
    assert float(statistics[0]) == pytest.approx(-0.4)
    assert float(statistics[1]) == pytest.approx(float(weight.std()))
    spread = torch.tensor([-9.0, -0.1, 0.1, 9.0])  # cells 0, 1, 2 and 3 of two bits
    assert packed(spread, 2)[0].tolist() == [0b11100100]
    three = torch.tensor([9.0, -9.0, 8.0])
    z, levels = (three - three.mean()) / three.std(), torch.tensor(codes(4))
    first, second, third = (z[:, None] - levels).abs().argmin(1).tolist()
    assert packed(three, 4)[0].tolist() == [first + 16 * second, third]


def test_bits_behind_the_last_entry_are_refused() -> None:
    octets, statistics = packed(torch.randn(10), 1)
    octets[1] |= 0b100
    with pytest.raises(ArtifactError, match=r"^the bits behind its last entry are not zero"):
        unpacked(octets, statistics, (10,), 1)


def test_bytes_of_the_card() -> None:
    """ViT-B/16: 24 maps of 32 x 768 at one bit, and a head of 100 classes."""
    maps = 24 * packed_bytes(32 * 768, 1)
    assert maps == 24 * (32 * 768 // 8 + 8) == 73_920
    assert maps + 4 * (100 * 768 + 100) == 381_520
    assert maps + packed_bytes(100 * 768, 1) == maps + 9_600 + 8 == 83_528
