from __future__ import annotations

import math

import pytest
import torch

from peftx_kernels.ops.snell_linear import quantile
from peftx_kernels.ops.snell_linear.quantile import magnitude_quantile, position

SPARSITIES = [0.0, 0.01, 0.1, 0.123456, 0.37, 0.5, 0.74, 0.9, 0.995, 1.0]


@pytest.fixture(params=["bracket", "histograms", "no numpy"])
def static(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "no numpy":
        monkeypatch.setattr(quantile, "numpy", None)
    return bool(request.param == "histograms")


@pytest.mark.parametrize("entries", [1, 2, 3, 7, 100, 768, 1001, 3 * 48 * 16, 300 * 700])
def test_bit_equal_to_torch(entries: int, static: bool) -> None:
    torch.manual_seed(entries)
    spread = torch.randn(entries) * 1e-3
    for v in (spread, (spread * 1e4).round() / 1e4, torch.zeros(entries), spread.square() * 1e-30):
        for sparsity in SPARSITIES:
            want = torch.quantile(v.abs(), sparsity)
            assert torch.equal(magnitude_quantile(v, sparsity, static=static), want), sparsity
            if static:
                tensor = torch.tensor(sparsity, dtype=torch.float64)
                assert torch.equal(magnitude_quantile(v, tensor, static=True), want), sparsity
                lower = magnitude_quantile(v, sparsity, smallest=True)
                assert torch.equal(magnitude_quantile(v, tensor, smallest=True, static=True), lower)
    double = spread.double()
    assert torch.equal(magnitude_quantile(double, 0.37, static=static), torch.quantile(double.abs(), 0.37))


@pytest.mark.parametrize("shape", [(768, 96), (96, 768)])
def test_bit_equal_on_structured_maps(shape: tuple[int, int], static: bool) -> None:
    """Rows of one size each, sorted and constant: what a sample along a fixed stride might see badly."""
    rows = torch.arange(shape[0], dtype=torch.float32)[:, None].expand(shape)
    v = torch.randn(shape)
    for one in (rows, v * rows, rows.t(), v.flatten().sort().values.view(shape), v * (rows % 97 == 0)):
        for sparsity in SPARSITIES:
            want = torch.quantile(one.abs().flatten(), sparsity)
            assert torch.equal(magnitude_quantile(one, sparsity, static=static), want), sparsity


def test_the_smallest_of_a_rank(static: bool) -> None:
    v = torch.tensor([3.0, -1.0, 2.0, 5.0, -4.0])
    for sparsity, want in ((0.0, 0.0), (0.1, 1.0), (0.2, 1.0), (0.21, 2.0), (0.6, 3.0), (1.0, 5.0)):
        assert float(magnitude_quantile(v, sparsity, smallest=True, static=static)) == want
        assert float(magnitude_quantile(v.double(), sparsity, smallest=True, static=static)) == want


def test_infinities_and_nan(static: bool) -> None:
    v = torch.tensor([1.0, -2.0, math.inf, 0.5])
    assert float(magnitude_quantile(v, 1 / 3, static=static)) == pytest.approx(1.0)
    assert math.isinf(magnitude_quantile(v, 1.0, static=static))
    v[1] = math.nan
    assert math.isnan(magnitude_quantile(v, 0.5, static=static))
    assert math.isnan(magnitude_quantile(torch.full((50,), math.nan), 0.5, static=static))


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"quantile at 1\.5 of 3 entries"):
        magnitude_quantile(torch.ones(3), 1.5)
    with pytest.raises(ValueError, match="of 0 entries"):
        magnitude_quantile(torch.ones(0), 0.5)


def test_kept_count() -> None:
    """N - 1 - floor(s (N - 1)) distinct magnitudes are larger than t: 58,983 of 589,824 at s = 0.9."""
    torch.manual_seed(0)
    for entries, sparsity, count in ((589_824, 0.9, 58_983), (1000, 0.5, 500), (10, 0.25, 7), (50, 0.0, 49)):
        v = torch.randperm(entries).float() + 1
        assert int((v > magnitude_quantile(v, sparsity)).sum()) == count
        assert entries - 1 - position(sparsity, entries)[0] == count


def test_position_rounds_as_torch_does() -> None:
    assert position(0.5, 5) == (2, 0.0)
    assert position(1.0, 5) == (4, 0.0)
    rank, weight = position(0.9, 11)  # float32's 0.9 is a little less, so the ninth step is not quite taken
    assert rank == 8 and weight == pytest.approx(1.0, abs=1e-6) and weight < 1
    assert position(0.9, 11, torch.float64) == (9, 0.0)
