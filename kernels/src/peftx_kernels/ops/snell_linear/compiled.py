"""Every kernel of this op as it is launched, to be compiled ahead of time: types, with and without a mixture."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peftx_kernels.aot import Kernel
from peftx_kernels.ops.snell_linear.backward import (
    contract_kernel,
    finish_kernel,
    join_moments_kernel,
    moments_kernel,
)
from peftx_kernels.ops.snell_linear.forward import form_kernel, join_stats_kernel, stats_kernel
from peftx_kernels.ops.snell_linear.search import WORDS, begin_kernel, count_kernel
from peftx_kernels.ops.snell_linear.sizes import CONTRACT, FORM, JOIN, SUMS

__all__ = ["kernels"]

_FLOATS = frozenset({"scale"})
_NUMBERS = frozenset(
    "out width size groups turned splits mode searched step rank weight base_row base_column rows_each tiles_down"
    " tiles_across blocks_down blocks_across".split()
)
_GRADIENTS = ("bf16", "fp16", "fp32")


def kernels() -> Iterator[Kernel]:
    """Each kernel for each type, with and without a mixture; none of them is told alignments (`maps.kernel`)."""
    yield _kernel(begin_kernel, {"WORDS": WORDS})
    for mix in (False, True):
        form = {"ROWS": FORM.rows, "COLUMNS": FORM.columns, "MIX": mix}
        yield _kernel(count_kernel, form, FORM.warps)
        for target, base in (("fp32", True), ("fp32", False), ("bf16", False), ("fp16", False)):
            given = {**form, "BASE": base, "SCALED": target == "fp16"}
            yield _kernel(form_kernel, given, FORM.warps, target=target)
        contract = {"ROWS": CONTRACT.rows, "COLUMNS": CONTRACT.columns, "MIX": mix}
        for gradient in _GRADIENTS:
            yield _kernel(contract_kernel, contract, CONTRACT.warps, gradient=gradient)
        yield _kernel(finish_kernel, {"BLOCK": JOIN, "MIX": mix})
    sums = {"ROWS": SUMS.rows, "COLUMNS": SUMS.columns}
    yield _kernel(stats_kernel, sums, SUMS.warps)
    for gradient in _GRADIENTS:
        yield _kernel(moments_kernel, sums, SUMS.warps, gradient=gradient)
    yield _kernel(join_stats_kernel, {"BLOCK": JOIN})
    yield _kernel(join_moments_kernel, {"BLOCK": JOIN})


def _kernel(function: Any, constants: Mapping[str, Any], warps: int = 4, **pointers: str) -> Kernel:
    """`pointers`: what those point to that may point to anything but float32 (the workspace: integers)."""
    pointers = {"work": "i32", **pointers}
    types = {}
    for name in function.arg_names:
        if name in constants:
            types[name] = "constexpr"
        elif name in _FLOATS:
            types[name] = "fp32"
        elif name in _NUMBERS:
            types[name] = "i32"
        else:
            types[name] = f"*{pointers.get(name, 'fp32')}"
    return Kernel(function, types, constants, num_warps=warps, num_stages=3)
