"""What can be said of the kernels without running them; `tests/interpreted` runs them."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton", reason="Triton is published for Linux only")

from peftx_kernels.ops.bottleneck import compiled, launch
from peftx_kernels.ops.bottleneck.check import ACTIVATIONS
from peftx_kernels.ops.bottleneck.triton import fits


def fitting(rows: int, width: int, units: int, dtype: torch.dtype, device: str = "cuda") -> bool:
    """As `auto` asks on a machine with a GPU."""
    with FakeTensorMode():
        h = torch.empty(rows, width, device=device, dtype=dtype)
        down = torch.empty(units, width, device=device)
        return fits("bottleneck", h, down, down.t(), residual=h, activation="relu")


def test_what_auto_gives_to_the_kernels() -> None:
    bf16 = torch.bfloat16
    assert fitting(12608, 768, 64, bf16) and fitting(12608, 768, 8, torch.float16)
    assert fitting(4096, 4096, 256, bf16)
    assert not fitting(12608, 768, 64, torch.float32)
    assert not fitting(12608, 768, 264, bf16)  # no room in the registers
    assert not fitting(64, 768, 64, bf16)  # less work than a launch
    assert not fitting(12608, 770, 64, bf16) and not fitting(
        12608, 768, 12, bf16
    )  # rows that are not aligned
    assert not fitting(12608, 768, 64, bf16, device="cpu")


def test_every_chosen_tile_is_compiled_ahead_of_time() -> None:
    found: dict[tuple[int, ...], set[str]] = {}
    for kernel in compiled.kernels():
        if kernel.function.__name__ in ("forward", "backward", "weights"):
            blocks = tuple(kernel.constants[name] for name in ("BLOCK_T", "BLOCK_D", "BLOCK_M"))
            activation = kernel.constants.get("ACTIVATION", "")
            found.setdefault((*blocks, kernel.num_warps, kernel.num_stages), set()).add(activation)
    for rows in (1, 4096, 1 << 20):
        for width in (768, 770):
            for units in (1, 8, 64, 256):
                for dtype in (torch.float32, torch.bfloat16):
                    tile = launch.configuration(rows, width, units, dtype)
                    assert found[tile] >= set(ACTIVATIONS)
                    assert "" in found[launch.configuration(rows, width, units, dtype, sums=True)]


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 1000, 12608])
@pytest.mark.parametrize("units", [1, 16, 256])
def test_shares_of_a_sum_cover_the_rows(rows: int, units: int) -> None:
    for programs in (1, 12, 1000):
        shares, share = launch.shares_of(rows, units, programs, 32)
        assert share % 32 == 0 and (shares - 1) * share < rows <= shares * share
        # what all shares write and read again: no more than h and dO, of two bytes an entry; or there is one
        assert shares == 1 or shares * units * 2 * 4 * 2 <= rows * 2 * 2
        assert shares == 1 or shares * programs <= launch._PROGRAMS
