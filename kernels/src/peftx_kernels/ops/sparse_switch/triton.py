"""Sparse switching by one launch for all weights of a type: 48 layers would be 144 library calls, each of which takes
longer to start than to run.

The kernel finds a weight by a table of addresses on the device; a program has entries of one weight only. Entries are
distinct, so no two programs touch the same. The traffic is that of the lines that hold the entries, read and written
once, beside index, value and original of each entry.

Not an operation of torch's: it changes tensors that it is not given but finds, which no schema can say.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from peftx_kernels.aot import Kernel
from peftx_kernels.arithmetic import rounded
from peftx_kernels.availability import interpreting
from peftx_kernels.context import on_device
from peftx_kernels.ops.sparse_switch import op
from peftx_kernels.ops.sparse_switch.tables import SparseTable

__all__ = ["fits", "kernels", "sparse_switch"]

_BLOCK = 1024
_WARPS = 4
_TYPES = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16, torch.float32: tl.float32}
_ANYWHERE = interpreting()  # the interpreter takes tensors of any device


@triton.jit
def write(  # type: ignore[no-untyped-def]
    addresses,  # (weights,) int64
    owner,  # (programs,) int32: the weight of a program
    count,  # (programs,) int32: how many entries it has
    first,  # (programs,) int64: its first entry
    held,  # (programs,) int64: the place of that entry's original
    indices,
    values,  # of all entries; or, to take out, the originals
    originals,
    ADD: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """With KEEP remember W[I], then W[I] = v or W[I] + v; without, W[I] = the original. Grid: programs."""
    program = tl.program_id(0)
    weight = tl.load(addresses + tl.load(owner + program)).to(tl.pointer_type(originals.dtype.element_ty))
    place = tl.arange(0, BLOCK)
    here = place < tl.load(count + program)
    entry = tl.load(first + program) + place
    kept = tl.load(held + program) + place
    at = weight + tl.load(indices + entry, mask=here, other=0).to(tl.int64)
    if KEEP:
        old = tl.load(at, mask=here, other=0.0)
        tl.store(originals + kept, old, mask=here)
        value = tl.load(values + entry, mask=here, other=0.0).to(tl.float32)
        if ADD:
            value += old.to(tl.float32)
        tl.store(at, rounded(value, originals.dtype.element_ty), mask=here)
    else:
        tl.store(at, tl.load(originals + kept, mask=here, other=0.0), mask=here)


@dataclass(slots=True)
class _Launch:
    """The weights of one type, and what the kernel is told of them."""

    dtype: torch.dtype
    places: list[int]  # of the table's weights
    memory: list[int]  # their addresses
    tables: tuple[Tensor, ...]  # addresses, owner, count, first, held
    size: int  # entries
    #: the originals of all its weights, while they are written
    buffer: Tensor | None = None


def fits(name: str, off: SparseTable | None, on: SparseTable | None) -> bool:
    """Whether `auto` takes the kernel: everything is on a GPU. From two weights on it has fewer launches."""
    return all(table is None or _able(table, cuda=True) for table in (off, on))


def _able(table: SparseTable, *, cuda: bool) -> bool:
    kinds = {target.dtype for target in table.targets} | {table.values.dtype}
    there = all(target.is_cuda for target in table.targets) or not cuda
    short = table.indices.dtype is torch.int32 or not cuda
    return there and short and bool(table.targets) and kinds <= _TYPES.keys()


def sparse_switch(off: SparseTable | None, on: SparseTable | None) -> None:
    """See ``peftx_kernels.sparse_switch``.

    Weights that are not on a GPU, float64, and weights of 2^31 entries or more are switched by library calls.
    """
    if not all(table is None or _able(table, cuda=not _ANYWHERE) for table in (off, on)):
        op.sparse_switch(off, on)
        return
    # one after the other, as launches of one stream run
    if off is not None:
        assert off.originals is not None
        for launch in _launches(off):
            _run(off, launch, _gathered(off.originals, launch), keep=False)
            launch.buffer = None
        off.originals = None
    if on is not None:
        originals: list[Tensor] = [on.values] * len(on.targets)
        for launch in _launches(on):
            launch.buffer = on.values.new_empty(launch.size, dtype=launch.dtype)
            _run(on, launch, launch.buffer, keep=True)
            parts = launch.buffer.split([on.counts[place] for place in launch.places])
            for place, part in zip(launch.places, parts, strict=True):
                originals[place] = part
        on.originals = originals


def _launches(table: SparseTable) -> list[_Launch]:
    """One for each type among the weights; made again when a weight has moved or was cast."""
    known: Any = table.plan
    if known is None or not all(_here(table, launch) for launch in known):
        kinds = dict.fromkeys(target.dtype for target in table.targets)
        known = table.plan = [_launch(table, dtype) for dtype in kinds]
    return known


def _here(table: SparseTable, launch: _Launch) -> bool:
    now = [(table.targets[place].data_ptr(), table.targets[place].dtype) for place in launch.places]
    return now == [(memory, launch.dtype) for memory in launch.memory]


def _launch(table: SparseTable, dtype: torch.dtype) -> _Launch:
    places = [place for place, target in enumerate(table.targets) if target.dtype is dtype]
    begins = [0, *itertools.accumulate(table.counts)]
    owner: list[int] = []
    count: list[int] = []
    first: list[int] = []
    held: list[int] = []
    size = 0
    for number, place in enumerate(places):
        for done in range(0, table.counts[place], _BLOCK):
            owner.append(number)
            count.append(min(_BLOCK, table.counts[place] - done))
            first.append(begins[place] + done)
            held.append(size + done)
        size += table.counts[place]
    memory = [table.targets[place].data_ptr() for place in places]
    device = table.indices.device
    wide = [torch.tensor(numbers, dtype=torch.int64, device=device) for numbers in (memory, first, held)]
    small = [torch.tensor(numbers, dtype=torch.int32, device=device) for numbers in (owner, count)]
    return _Launch(dtype, places, memory, (wide[0], *small, *wide[1:]), size)


def _gathered(originals: list[Tensor], launch: _Launch) -> Tensor:
    """What was there before, as one tensor, whoever kept it."""
    mine = [originals[place] for place in launch.places]
    if launch.buffer is not None and mine[0].untyped_storage().data_ptr() == launch.buffer.data_ptr():
        return launch.buffer
    return torch.cat(mine)


def _run(table: SparseTable, launch: _Launch, originals: Tensor, *, keep: bool) -> None:
    programs = launch.tables[1].shape[0]
    if programs:
        values = table.values if keep else originals
        options = {"ADD": keep and table.add, "KEEP": keep, "BLOCK": _BLOCK, "num_warps": _WARPS}
        with on_device(table.indices):
            write[(programs,)](*launch.tables, table.indices, values, originals, **options)
    # a kernel changes memory behind torch's back
    for place in launch.places:
        target = table.targets[place]
        if not target.is_inference():
            torch.autograd.graph.increment_version(target)


def kernels() -> Iterator[Kernel]:
    """Writing and taking out, in every type."""
    for name in ("bf16", "fp16", "fp32"):
        for values in dict.fromkeys((name, "fp32")):
            for add, keep in ((True, True), (False, True), (False, False)):
                if not keep and values != name:
                    continue  # originals have the weight's type
                for aligned in (True, False):
                    yield _described(name, values, add, keep, aligned)


def _described(name: str, values: str, add: bool, keep: bool, aligned: bool) -> Kernel:
    pointers = {"addresses": "*i64", "owner": "*i32", "count": "*i32", "first": "*i64", "held": "*i64"}
    types = pointers | {"indices": "*i32", "values": f"*{values}", "originals": f"*{name}"}
    constants: dict[str, Any] = {"ADD": add, "KEEP": keep, "BLOCK": _BLOCK}
    divisible = tuple(types) if aligned else ()
    every = types | dict.fromkeys(constants, "constexpr")
    return Kernel(write, every, constants, divisible, num_warps=_WARPS)
