from __future__ import annotations

import pytest
import torch

from peftx_kernels.dropout import check_rate, draw_seed, keep_mask, kept_fraction


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_mask_statistics(rate: float) -> None:
    mask = keep_mask(torch.empty(501, 401), rate, seed=3)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    deviation = (rate * (1 - rate) / mask.numel()) ** 0.5
    assert abs(mask.mean().item() - kept_fraction(rate)) < 4 * deviation
    # the four entries of one 64-bit draw, and neighbouring rows, are independent
    flat = mask.flatten()[: mask.numel() // 4 * 4].view(-1, 4)
    assert (flat.mean(0) - kept_fraction(rate)).abs().max() < 8 * deviation
    assert torch.corrcoef(flat.t()).fill_diagonal_(0).abs().max() < 0.02
    assert torch.corrcoef(mask[:20]).fill_diagonal_(0).abs().max() < 0.3


def test_mask_is_a_function_of_the_seed() -> None:
    like = torch.empty(7, 5)
    assert torch.equal(keep_mask(like, 0.5, 1), keep_mask(like, 0.5, 1))
    assert not torch.equal(keep_mask(like, 0.5, 1), keep_mask(like, 0.5, 2))


def test_global_generator_is_used_for_the_seed_only() -> None:
    torch.manual_seed(5)
    first = draw_seed()
    torch.manual_seed(5)
    assert draw_seed() == first != draw_seed()
    state = torch.get_rng_state()
    keep_mask(torch.empty(3), 0.5, 0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(0, 4), (1,), (3, 3)])
def test_mask_shape_and_dtype(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    mask = keep_mask(torch.empty(shape, dtype=dtype), 0.3, 0)
    assert (mask.shape, mask.dtype) == (shape, dtype)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rate_out_of_range(rate: float) -> None:
    with pytest.raises(ValueError, match="expected at least 0 and less than 1"):
        check_rate(rate)


def test_extreme_rates_stay_finite() -> None:
    assert 0 < kept_fraction(0.999999) < 1
    assert kept_fraction(0.0) == 1.0
    assert kept_fraction(0.5) == 0.5
