"""What of the kernels is compiled ahead of time: every configuration, with all that a call can have or without."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from peftx_kernels.aot import Kernel
from peftx_kernels.ops.bottleneck.backward import backward, weights
from peftx_kernels.ops.bottleneck.check import ACTIVATIONS
from peftx_kernels.ops.bottleneck.forward import draw, fold, forward
from peftx_kernels.ops.bottleneck.launch import DRAW, FOLD, TILES, VECTOR, WIDEST, Tile

__all__ = ["kernels"]

#: activations; pointers to fp32; arguments that are numbers; all others point to tensors in the type of the products
_FLOWS = frozenset({"h", "residual", "o", "d_o", "d_h"})
_WIDE = frozenset({"bias", "statistics", "d_scale", "sums", "down_bias", "gamma", "beta"})
_REAL = frozenset({"scale", "kept", "eps"})
_WHOLE = frozenset({"rows", "width", "units", "steps", "dropped", "share", "length"})
_OPTIONAL = ("residual", "bias", "up_bias", "learned", "mask", "statistics", "d_scale")


def _kernel(
    function: Any, dtype: str, tile: Tile, constants: Mapping[str, Any], *, even: bool, flows: str = ""
) -> Kernel:
    """One kernel for products in `dtype`, between activations in `flows` where that is another type.

    `even`: width and addresses are multiples of 16, units of 8.
    """
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    types: dict[str, str] = {}
    for name in function.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name in _REAL:
            types[name] = "fp32"
        elif name in _WHOLE:
            types[name] = "i32"
        else:
            wide, flow = name in _WIDE, flows if name in _FLOWS else ""
            types[name] = "*i64" if name == "seed" else "*fp32" if wide else f"*{flow or dtype}"
    vectors = [name for name, kind in types.items() if kind.startswith("*")] + ["width"]
    divisible = tuple(name for name in vectors if name in types and types[name] != "constexpr")
    return Kernel(function, types, constants, divisible if even else (), tile.warps, tile.stages)


def kernels() -> Iterator[Kernel]:
    """Every kernel in every configuration, for every type it runs with."""
    for name, tile in TILES.items():
        for dtype, flows, even in _calls(name):
            constants: dict[str, Any] = {"BLOCK_T": tile.t, "BLOCK_D": tile.d, "BLOCK_M": tile.m}
            constants["STEP"] = VECTOR if even else 1
            if "sums" in name:
                constants |= dict.fromkeys(("DOWN", "UP", "UP_BIAS", "DOWN_BIAS"), True)
                yield _kernel(weights, dtype, tile, constants, even=even, flows=flows)
                continue
            constants["OWN"] = dtype != "fp16"
            if dtype == "fp16":  # bfloat16 and fp32 have everything
                constants |= dict.fromkeys(_OPTIONAL)
            for function, activation in itertools.product((forward, backward), ACTIVATIONS):
                both = constants | {"ACTIVATION": activation}
                yield _kernel(function, dtype, tile, both, even=even, flows=flows)
    thin = Tile(DRAW, FOLD[1], WIDEST, 4, 3)
    for dtype in ("bf16", "fp16", "fp32"):
        rows = {"BLOCK_M": FOLD[0], "BLOCK_D": FOLD[1]}
        yield _kernel(fold, dtype, thin, rows, even=dtype != "fp32")
        yield _kernel(draw, dtype, thin, {"BLOCK_T": DRAW, "BLOCK_M": WIDEST}, even=dtype != "fp32")


def _calls(name: str) -> Iterator[tuple[str, str, bool]]:
    """The types of products and of activations that a configuration serves, and whether its rows are even."""
    if "exact" in name:
        yield from (("fp32", "", True), ("fp32", "", False))
        return
    even = "uneven" not in name
    yield from (("bf16", "", even), ("fp16", "", even), ("bf16", "fp32", even))  # the last under autocast
