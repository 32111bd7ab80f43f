"""Fusing: adapters in the weights of a live model, to be taken out again or changed for others, bit for bit."""

from __future__ import annotations

import torch

from peftx.adapters.attachment import select_for
from peftx.adapters.fused import Fused
from peftx.adapters.handle import Adapted
from peftx.adapters.host import root_board
from peftx.artifacts.weights import Writer
from peftx.errors import AdapterError, ArtifactError
from peftx_kernels import SparseTable, sparse_switch

__all__ = ["fuse"]


def fuse(adapted: Adapted, *names: str) -> None:
    """Write adapters into the weights of their model, in place, so that its forwards cost what the base's cost.

    Unlike `merge`, this goes back: whatever comes next (`activate`, `attach`, `load`, `remove`, `detach`, `merge`) has
    the base's own bits, and fusing others writes those in their stead. Of updates with `Delta.sparse` (core.shira) only
    the entries are written and kept, so they are switched in milliseconds; of any other the old weights are kept whole,
    in memory. Values are computed as by `merge`, to the same bits.

    While adapters are fused none is active and nothing is trained. `disabled`, `per_sample` and `save` take them out
    for as long as they need the base.

    Args:
        adapted: the handle.
        names: the adapters, in order; the active ones by default.

    Raises:
        UnknownNameError: an adapter is not attached.
        AdapterError: none is named and none active, or one is named twice; or a weight was changed while others were
            fused.
        ArtifactError: an adapter cannot be merged, or holds NaN; a value overflows. The weights are then the base's, or
            still hold what was fused before.
    """
    names = names or adapted.active or adapted.fused
    if not names:
        raise AdapterError(f"no adapter is active; name those to fuse: {', '.join(adapted.names)}")
    if len(set(names)) < len(names):
        raise AdapterError(f"an adapter cannot be fused twice; got {', '.join(names)}")
    for name in names:
        adapted.attachment(name)
    board = root_board(adapted.model)
    assert board is not None  # it has attachments
    writer = Writer(adapted, names, keep=True)
    writer.refuse()
    if board.fused is not None and board.fused.kept.replaced:
        board.unfuse()  # which parameters there are is known only then
        writer = Writer(adapted, names, keep=True)
    table = writer.take_sparse()
    if board.fused is None:
        sparse_switch(None, table)
    else:
        board.fused.take_out(table)
        board.fused = None
    try:
        _refuse_overflow(table)
        writer.write()
    except BaseException:
        writer.restore()
        sparse_switch(table, None)
        raise
    if board.current.names or board.trained:
        select_for(adapted.model, board, ())
    board.fused = Fused(names, table, writer.kept)


def _refuse_overflow(table: SparseTable | None) -> None:
    """Look at what was written into float16, whose range a sum of two finite values may leave."""
    if table is None:
        return
    for target, index in zip(table.targets, table.parts_of(table.indices), strict=True):
        if target.dtype is torch.float16 and not target.view(-1)[index.long()].isfinite().all():
            raise ArtifactError(
                "a merged weight overflows float16; nothing was fused: fuse into a base of another dtype"
            )
