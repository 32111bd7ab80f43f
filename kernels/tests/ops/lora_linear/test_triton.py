"""What can be said of the kernels without running them; `tests/interpreted` runs them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton", reason="Triton is published for Linux only")

from peftx_kernels.ops.lora_linear import product, thin
from peftx_kernels.ops.lora_linear.calls import splits
from peftx_kernels.ops.lora_linear.parts import layout_of, piece_table, rows_of
from peftx_kernels.ops.lora_linear.triton import fits


def fitting(rows: int, width: int, out: int, rank: int, dtype: torch.dtype, **options: Any) -> bool:
    """As `auto` asks on a machine with a GPU."""
    with FakeTensorMode():
        x = torch.empty(rows, width, device="cuda", dtype=dtype)
        weight = torch.empty(out, width, device="cuda", dtype=dtype)
        a, b = torch.empty(rank, width, device="cuda"), torch.empty(out, rank, device="cuda")
        one = fits("lora_linear", x, weight, None, a, b, 1.0, **options)
        parts = [(0, out, a, b, 1.0)]
        assert one == fits("lora_linear_slices", x, weight, None, parts, **options)
        assert not fits("lora_linear_slices", x, weight, None, [], **options)
        return one


def test_what_auto_gives_to_the_kernels() -> None:
    bf16 = torch.bfloat16
    assert fitting(12608, 768, 768, 16, bf16) and fitting(12608, 768, 3072, 16, torch.float16)
    assert not fitting(12608, 768, 768, 16, torch.float32)
    assert not fitting(64, 768, 768, 16, bf16)  # less work than a launch
    assert not fitting(12608, 768, 770, 16, bf16)  # rows that are not aligned
    assert not fitting(4096, 8192, 8192, 384, bf16)  # the library's products all through
    assert fitting(4096, 8192, 8192, 384, bf16, dropout=0.1, training=True)  # but for the mask
    assert not fitting(4096, 8192, 8192, 384, bf16, dropout=0.1, training=False)
    x = torch.empty(12608, 768, dtype=bf16, device="meta")
    assert not fits("lora_linear", x, x, None, x, x, 1.0)


def test_every_chosen_tile_is_compiled_ahead_of_time() -> None:
    compiled = {
        tuple(k.constants[name] for name in ("BLOCK_T", "BLOCK_J", "BLOCK_I", "BLOCK_R"))
        for k in product.kernels()
    }
    for rows in (1, 4096, 1 << 20):
        for dtype in (torch.float32, torch.bfloat16):
            for even in (True, False):
                for plain in (True, False):
                    at = product.configuration(rows, 4096, dtype, even=even, plain=plain)
                    assert (at.t, at.j, at.i, at.r) in compiled
    names = {"project": "BLOCK_K", "down_pass": "BLOCK_K", "output_pass": "BLOCK_N"}
    thin_ones = [(k.function.__name__, k.constants) for k in thin.kernels()]
    for name, wide in names.items():
        for rank in (1, 16, 17, 384) if name != "output_pass" else (1, thin.WIDEST):
            for dtype in (torch.float32, torch.float16):
                for even in (True, False):
                    at = thin.configuration(name, rank, dtype, even=even)
                    same = {"BLOCK_T": at.t, wide: at.wide, "BLOCK_R": at.r}
                    assert any(n == name and same.items() <= c.items() for n, c in thin_ones)


def test_parts_in_tables() -> None:
    def factor(*shape: int) -> Tensor:
        return torch.empty(shape)

    rows = rows_of(
        factor(20, 6),
        [(0, 9, factor(2, 6), factor(9, 2), 1.0), (12, 20, factor(3, 6), factor(8, 3), 3.0)],
        0.5,
    )
    assert [row.scale for row in rows] == [2.0, 6.0]
    layout = layout_of(rows)
    assert layout == [0, 9, 0, 2, 0, 12, 20, 2, 3, 18]
    assert piece_table(tuple(layout), 4, torch.device("cpu")).tolist() == [
        [0, 0, 0],
        [0, 4, 1],
        [0, 8, 2],
        [1, 12, 0],
        [1, 16, 1],
    ]


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 1000])
@pytest.mark.parametrize("programs", [1, 2, 100])
def test_shares_of_a_sum_cover_it(rows: int, programs: int) -> None:
    parts, share = splits(programs, rows, 32, torch.device("cpu"))
    assert share % 32 == 0 and (parts - 1) * share < rows <= parts * share
