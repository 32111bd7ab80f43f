"""Per-sample adapters: one batch, several adapters, each sample under its own.

Every adapted module splits its input by the selection, runs each part under its adapter, and puts the outputs
back in order. It holds for any delta, additive or not, and for any module, because the module's own code runs on
each part. Modules between adapted ones see the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from peftx.errors import AdapterError

if TYPE_CHECKING:
    from peftx.adapters.slot import Selection, Slot

__all__ = ["run_partitioned"]


def run_partitioned(module: Any, slot: Slot, selection: Selection, args: Any, kwargs: Any) -> Any:
    """Run an adapted module under a selection that is not simply the current one.

    Either the batch is partitioned among adapters, or the forward is a recomputation inside backward that has to
    use an earlier selection.
    """
    board = slot.board
    before = board.current
    try:
        if selection.rows is None:
            board.current = selection
            return _nested(module, board, args, kwargs)
        groups = [(names, rows) for names, rows in selection.rows if rows.numel()]
        adapted = set(slot._modules)
        if not any(adapted.intersection(names) for names, _ in groups):
            board.current = _plain(())
            return _nested(module, board, args, kwargs)
        layout = _attention_layout(module) if isinstance(module, nn.MultiheadAttention) else _layout(slot)
        bound = layout.bind(args, kwargs, selection.size, slot.key)
        outputs, orders = [], []
        for names, rows in groups:
            board.current = _plain(names)
            outputs.append(_nested(module, board, *bound(rows)))
            orders.append(rows)
        return layout.join(outputs, torch.cat(orders), selection.size)
    finally:
        board.current = before


def _plain(names: tuple[str, ...]) -> Selection:
    from peftx.adapters.slot import Selection

    return Selection(names=names)


def _nested(module: Any, board: Any, args: Any, kwargs: Any) -> Any:
    # board.current was replaced: whatever the module calls must take it as it is, also inside a backward
    inside, board._inside = board._inside, True
    try:
        return module.forward(*args, **kwargs)
    finally:
        board._inside = inside


def _blocks(rows: Tensor, length: int, size: int) -> Tensor:
    """Indices of the samples `rows` in a dimension of `length` rows; one sample is a contiguous block of
    ``length / size`` rows (windows of an image, frames, heads)."""
    each = length // size
    if each == 1:
        return rows
    return (rows[:, None] * each + torch.arange(each, device=rows.device)).reshape(-1)


def _take(value: Tensor, dim: int, rows: Tensor, size: int) -> Tensor:
    return value.index_select(dim, _blocks(rows.to(value.device), value.shape[dim], size))


@dataclass(frozen=True)
class _Layout:
    """Where samples stand in a module's arguments and results: dimension by argument and result position.

    `inputs` maps positions and names of arguments to dimensions; None means "as found": the first tensor tells how
    many rows a sample takes, and other tensors of that length are split with it.
    """

    dim: int
    inputs: dict[int | str, int] | None = None
    outputs: tuple[int, ...] = ()

    def bind(self, args: Any, kwargs: Any, size: int, key: str) -> Callable[[Tensor], tuple[Any, Any]]:
        """A function from sample indices to the arguments of these samples."""
        named = dict(enumerate(args)) | kwargs
        dims = self._dims(named, size, key)

        def part(rows: Tensor) -> tuple[Any, Any]:
            taken = {
                name: _take(value, dims[name], rows, size) if name in dims else value
                for name, value in named.items()
            }
            return tuple(taken[i] for i in range(len(args))), {name: taken[name] for name in kwargs}

        return part

    def _dims(self, named: dict[Any, Any], size: int, key: str) -> dict[Any, int]:
        tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
        if self.inputs is not None:
            return {
                name: self.inputs[name]
                for name, value in tensors.items()
                if name in self.inputs and not (name in ("attn_mask", 5) and value.dim() < 3)
            }
        dims: dict[Any, int] = {}
        length = 0
        for name, value in tensors.items():
            if value.dim() <= self.dim:
                continue
            rows = value.shape[self.dim]
            if not length and (rows == 0 or rows % size):
                break
            length = length or rows
            if rows != length:
                continue
            if dims and value.dim() > self.dim + 1 and value.shape[self.dim + 1] == rows:
                raise AdapterError(
                    f"{key} was given a square tensor ({name}, {tuple(value.shape)}) whose rows may be samples or "
                    "positions, so the batch cannot be split among adapters here; run one adapter at a time"
                )
            dims[name] = self.dim
        if not dims:
            raise AdapterError(
                f"{key} was called with no tensor whose dimension {self.dim} is a multiple of {size}, the number of "
                "adapter ids given; give one id per sample of the batch"
            )
        return dims

    def join(self, outputs: list[Any], rows: Tensor, size: int) -> Any:
        """Put the parts' results back into batch order, whatever structure the module returns."""
        flat = [tree_flatten(output) for output in outputs]
        joined: list[Any] = []
        for position, first in enumerate(flat[0][0]):
            dim = self.outputs[position] if position < len(self.outputs) else self.dim
            if not isinstance(first, Tensor) or first.dim() <= dim:
                joined.append(first)
                continue
            whole = torch.cat([leaves[position] for leaves, _ in flat], dim)
            order = torch.argsort(_blocks(rows.to(first.device), whole.shape[dim], size))
            joined.append(whole.index_select(dim, order))
        return tree_unflatten(joined, flat[0][1])


def _layout(slot: Slot) -> _Layout:
    return _Layout(dim=slot.batch_dim)


def _attention_layout(module: nn.MultiheadAttention) -> _Layout:
    dim = 0 if module.batch_first else 1
    inputs: dict[int | str, int] = {0: dim, 1: dim, 2: dim, "query": dim, "key": dim, "value": dim}
    inputs |= {3: 0, "key_padding_mask": 0, 5: 0, "attn_mask": 0}
    return _Layout(dim=dim, inputs=inputs, outputs=(dim, 0))
