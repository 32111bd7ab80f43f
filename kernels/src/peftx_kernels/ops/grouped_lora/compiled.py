"""Every kernel of grouped LoRA as it may be compiled, for `peftx_kernels.aot`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peftx_kernels.aot import Kernel
from peftx_kernels.ops.grouped_lora.launch import FULL, HALF, Blocks
from peftx_kernels.ops.grouped_lora.segments import expand, outer, shrink

__all__ = ["kernels"]

_CHUNKS = {"order": "*i32", "chunk_group": "*i32", "chunk_first": "*i32", "chunk_count": "*i32"}
_ITEMS = {"items": "*i64", "scales": "*fp32"}
_WIDE = {"v": "*fp32", "v_split": "i64", "v_row": "i32"}
_MASK = {"seed": "*i64", "dropped": "i32"}


def kernels() -> Iterator[Kernel]:
    """Each kernel for A, with and without a mask, and for B, in every type."""
    for dtype, tile in (("bf16", HALF), ("fp16", HALF), ("fp32", FULL)):
        for aligned in (True, False):
            for masked in (True, False):
                yield _shrink(dtype, tile, True, masked, aligned)
                yield _expand(dtype, tile, True, masked, aligned)
                yield _outer(dtype, tile, masked, aligned)
            yield _shrink(dtype, tile, False, False, aligned)
            yield _expand(dtype, tile, False, False, aligned)


def _kernel(
    function: Any,
    types: dict[str, str],
    tile: Blocks,
    options: dict[str, bool],
    divisible: tuple[str, ...],
) -> Kernel:
    constants = {"BLOCK_T": tile.rows, "BLOCK_R": tile.ranks, "BLOCK_C": tile.columns, **options}
    warps = tile.expand_warps if function is expand else tile.warps
    constants["EVEN"] = 16 if divisible else 1
    every = types | dict.fromkeys(constants, "constexpr")
    return Kernel(
        function,
        every,
        constants,
        divisible,
        num_warps=warps,
        num_stages=tile.stages,
    )


def _shrink(dtype: str, tile: Blocks, along: bool, masked: bool, aligned: bool) -> Kernel:
    x = {"x": f"*{dtype}", "x_row": "i32"}
    types = {**x, **_CHUNKS, "first": "*i32", **_ITEMS, "matrix": f"*{dtype}", **_WIDE, **_MASK}
    divisible = ("x", "x_row", "matrix", "v", "v_split", "v_row", "seed") if aligned else ()
    options = {"ALONG_COLUMNS": along, "MASKED": masked}
    return _kernel(shrink, types, tile, options, divisible)


def _expand(dtype: str, tile: Blocks, along: bool, masked: bool, aligned: bool) -> Kernel:
    y = {"y": f"*{dtype}", "columns": "i32"}
    thin = {"matrix": f"*{dtype}", **_WIDE, "splits": "i32", "kept": f"*{dtype}"}
    types = {**y, **_CHUNKS, "first": "*i32", **_ITEMS, **thin, **_MASK}
    divisible = ("y", "columns", "matrix", "v", "v_split", "v_row", "kept", "seed") if aligned else ()
    options = {"ALONG_COLUMNS": along, "MASKED": masked}
    return _kernel(expand, types, tile, options, divisible)


def _outer(dtype: str, tile: Blocks, masked: bool, aligned: bool) -> Kernel:
    rows = {"v": f"*{dtype}", "v_row": "i32", "g": f"*{dtype}", "g_row": "i32"}
    out = {"out": "*fp32", "out_split": "i64"}
    types = {**rows, "order": "*i32", "starts": "*i32", **_ITEMS, **out, **_MASK}
    divisible = ("v", "v_row", "g", "g_row", "out", "out_split", "seed") if aligned else ()
    return _kernel(outer, types, tile, {"MASKED": masked}, divisible)
