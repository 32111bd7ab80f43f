"""Sparse adapters written into live weights and taken out again, bit for bit (SHiRA, arXiv 2406.13175)."""

from __future__ import annotations

import torch

from peftx_kernels.ops.sparse_switch.tables import SparseTable
from peftx_kernels.table import implementation, prepare

__all__ = ["SparseTable", "sparse_switch"]

prepare("sparse_switch")


@torch.compiler.disable
@torch.no_grad()
def sparse_switch(off: SparseTable | None, on: SparseTable | None) -> None:
    """Take one sparse adapter out of its weights and write another one into its own, in place; either may be None.

    Writing, for every weight W of `on` with its flat indices I and values v,

        o = W[I];  W[I] = o + v        (``SparseTable(add=True)``, the delta form; or = v, the overwrite form)

    and o is kept in ``on.originals``. Taking out is W[I] = o: the weights are then bit for bit what they were, because
    nothing is subtracted. Adapters may lie on one another, their sets overlapping: the last one written is taken out
    first. ``sparse_switch(a, b)`` gives what ``sparse_switch(a, None)`` and then ``sparse_switch(None, b)`` give, for
    less.

    Weights may be of any floating dtype; o + v is computed in the wider of the weight's and the value's (fp32 at
    least) and rounded once, so every tier gives the same bits. Each entry is read and written once, its index and value
    read, its original written; what costs is the lines of memory they lie in. No gradients, and no graph of a compiler:
    a compiled model reads its weights when it runs. The weights' version counters move, so a backward pass that needs
    their old values says so.

    Raises:
        KernelError: `off` is not written, or not the last written of one of its weights; `on` is written already; or a
            weight was changed by somebody else while an adapter was in it: load the weights again, and tell the table
            (`SparseTable.forget`).
    """
    if off is not None:
        off.follow()
        off.refuse_out()
    if on is not None:
        on.follow()
        on.refuse_in(off)
    if off is None and on is None:
        return
    implementation("sparse_switch")(off, on)
    if off is not None:
        off.note_out()
    if on is not None:
        on.note_in()
