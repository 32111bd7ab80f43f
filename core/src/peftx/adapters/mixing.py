"""Per-sample adapters: one batch, several adapters, each sample under its own.

Every adapted module splits its input by the selection, runs each part under its adapter, and puts the outputs
back in order. It holds for any delta, additive or not, and for any module, because the module's own code runs on
each part. Modules between adapted ones see the whole batch. A textbook layer all of whose adapters know how to share
the product with its weight (`Delta.grouped`) is not split: they get the whole batch, and which rows are whose.
"""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from peftx.adapters.delta import grouping
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
        if not any(name in slot for names, _ in groups for name in names):
            # nothing to split here; the modules below still have to
            return type(module)._peftx_base.forward(module, *args, **kwargs)
        if len(groups) > 1:
            together = _together(module, slot, selection, args, kwargs)
            if together is not None:
                return together
            _refuse_state(module, slot, args, kwargs)
        split = _Split(slot.key, selection.size, _dims(module, slot, args, kwargs, selection.size))
        outputs = []
        for names, rows in groups:
            board.current = selection.part(names, rows)
            outputs.append(_nested(module, board, *split.part(args, kwargs, rows)))
        return split.join(outputs, [rows for _, rows in groups])
    finally:
        board.current = before


def _together(module: Any, slot: Slot, selection: Selection, args: Any, kwargs: Any) -> Tensor | None:
    """The output for the whole batch at once, where the layer and all its adapters allow it."""
    if module._peftx_product is None or slot.inserted or len(args) != 1 or kwargs:
        return None
    deltas = [slot.weights(names) for names, _ in selection.rows or ()]
    kinds = {grouping(type(delta)) for own in deltas for delta in own}
    x, dim = args[0], slot.batch_dim
    if len(kinds) != 1 or None in kinds or not isinstance(x, Tensor) or x.is_nested or x.dim() < dim + 2:
        return None
    dims = _dims(module, slot, args, kwargs, selection.size)
    if dims.shared:  # asked once for all samples: there are no rows of theirs yet
        return None
    each = dims.each * math.prod(x.shape[dim + 1 : -1])
    board = slot.board
    if board.trace is not None:
        board.trace.update(delta.site.key for own in deltas for delta in own)
    base = module._peftx_product(module)
    base.recompute = board.recompute_activations
    assert selection.groups is not None
    groups = selection.groups.spread(each, before=math.prod(x.shape[:dim]))
    found: Tensor | None = next(iter(kinds)).grouped(deltas, groups, x, base)
    return found


def _refuse_state(module: Any, slot: Slot, args: Any, kwargs: Any) -> None:
    """Refuse arguments that hold something of all samples and cannot be taken apart: every part would add to them.

    A cache of keys and values is one (an object of transformers, a dict that hooks of openai-whisper fill).
    """
    names = _names(type(module)._peftx_base)
    for place, value in [*enumerate(args), *kwargs.items()]:
        if not _is_plain(value):
            name = names[place] if isinstance(place, int) and place < len(names) else place
            raise AdapterError(
                f"{slot.key} was given {name}, a {type(value).__name__}, which holds something of all samples, so "
                "the batch cannot be split among adapters here; run the model without a cache (use_cache=False), or "
                "one adapter at a time"
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_plain(item) for item in value)
    plain = Tensor | bool | int | float | complex | str | torch.dtype | torch.device
    return value is None or isinstance(value, plain) or callable(value)


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


@dataclass(frozen=True)
class _Dims:
    """Where samples stand in a module's arguments and results.

    `inputs` maps positions and names of arguments to dimensions, `outputs` positions of results (`other` for the
    rest). `each` is the number of rows one sample takes in the main input.
    """

    inputs: dict[int | str, int]
    other: int
    each: int
    outputs: tuple[int, ...] = ()
    #: the input is the same for all samples: it is handed to every part whole, once per sample
    shared: bool = False


@dataclass(frozen=True)
class _Split:
    """Takes a module's call apart by samples and puts the results together."""

    key: str
    size: int
    dims: _Dims

    def part(self, args: Any, kwargs: Any, rows: Tensor) -> tuple[Any, Any]:
        """The arguments of the samples `rows`."""
        taken = [self._take(i, value, rows) for i, value in enumerate(args)]
        return tuple(taken), {name: self._take(name, value, rows) for name, value in kwargs.items()}

    def _take(self, name: int | str, value: Any, rows: Tensor) -> Any:
        dim = self.dims.inputs.get(name)
        if dim is None:
            return value
        if self.dims.shared:
            value = value[None] if value.dim() == 1 else value
            return value.expand(rows.numel(), *value.shape[1:])
        if value.shape[dim] % self.size:
            raise AdapterError(
                f"{self.key} was given {name} of shape {tuple(value.shape)}, whose dimension {dim} is no multiple of "
                f"{self.size}, the number of adapter ids; give one id per sample of the batch"
            )
        return value.index_select(dim, _blocks(rows.to(value.device), value.shape[dim], self.size))

    def join(self, outputs: list[Any], rows: list[Tensor]) -> Any:
        """Put the parts' results back into batch order, whatever structure the module returns."""
        flat = [tree_flatten(output) for output in outputs]
        order = torch.cat(rows)
        joined: list[Any] = []
        for position, first in enumerate(flat[0][0]):
            if not isinstance(first, Tensor):
                joined.append(first)
                continue
            outer = self.dims.outputs
            dim = outer[position] if position < len(outer) else self.dims.other
            leaves = [parts[position] for parts, _ in flat]
            wanted = [part.numel() * self.dims.each for part in rows]
            if not _fit(leaves, dim, wanted):
                raise AdapterError(
                    f"{self.key} returned shapes {[tuple(leaf.shape) for leaf in leaves]} for parts of {wanted} rows "
                    "of the batch, which cannot be put together again; run one adapter at a time"
                )
            back = torch.argsort(_blocks(order.to(first.device), self.size * self.dims.each, self.size))
            joined.append(torch.cat(leaves, dim).index_select(dim, back))
        return tree_unflatten(joined, flat[0][1])


def _fit(leaves: list[Tensor], dim: int, wanted: list[int]) -> bool:
    shapes = [list(leaf.shape) for leaf in leaves]
    if any(len(shape) <= dim for shape in shapes) or [shape.pop(dim) for shape in shapes] != wanted:
        return False
    return all(shape == shapes[0] for shape in shapes)


def _dims(module: Any, slot: Slot, args: Any, kwargs: Any, size: int) -> _Dims:
    if isinstance(module, nn.MultiheadAttention):
        return _attention_dims(module, slot, args, kwargs, size)
    if isinstance(module, nn.Embedding) and _is_position(slot):
        return _position_dims(module, slot, args, kwargs, size)
    return _usual_dims(module, slot, args, kwargs, size)


#: arguments that hold something of positions, not of samples
_POSITIONS = re.compile(r".*(rope|rotary|freqs|rel_pos|relative|pos_(emb|bias)|position_(emb|bias)).*")
#: arguments that may have a row per position, or one per sample
_MASKS = re.compile(r".*(mask|bias).*")


@cache
def _names(cls: Any) -> tuple[str, ...]:
    try:
        return tuple(inspect.signature(cls.forward).parameters)[1:]
    except (TypeError, ValueError):
        return ()


def _usual_dims(module: Any, slot: Slot, args: Any, kwargs: Any, size: int) -> _Dims:
    """The first tensor tells how many rows a sample takes; other tensors with as many rows are split with it."""
    dim, length = slot.batch_dim, 0
    names = _names(type(module)._peftx_base)
    found: dict[int | str, int] = {}
    for place, value in [*enumerate(args), *kwargs.items()]:
        name = names[place] if isinstance(place, int) and place < len(names) else str(place)
        if not isinstance(value, Tensor) or value.dim() <= dim or _POSITIONS.fullmatch(name):
            continue
        rows = value.shape[dim]
        if not length and (rows == 0 or rows % size):
            break
        length = length or rows
        if rows != length:
            continue
        if found and _MASKS.fullmatch(name) and value.dim() > dim + 1 and value.shape[dim + 1] == rows:
            raise AdapterError(
                f"{slot.key} was given a square {name}, {tuple(value.shape)}, whose rows may be samples or positions, "
                "so the batch cannot be split among adapters here; run one adapter at a time"
            )
        found[place] = dim
    if not found:
        raise AdapterError(
            f"{slot.key} was called with no tensor whose dimension {dim} is a multiple of {size}, the number of "
            "adapter ids given; give one id per sample of the batch"
        )
    return _Dims(found, dim, length // size)


def _attention_dims(module: nn.MultiheadAttention, slot: Slot, args: Any, kwargs: Any, size: int) -> _Dims:
    query = args[0] if args else kwargs["query"]
    if query.dim() != 3:
        raise AdapterError(
            f"{slot.key} was called without a batch dimension, so there are no samples to give adapters to"
        )
    dim = 0 if module.batch_first else 1
    known: dict[int | str, int] = {0: dim, 1: dim, 2: dim, "query": dim, "key": dim, "value": dim}
    known |= {3: 0, "key_padding_mask": 0, 5: 0, "attn_mask": 0}
    given = [*enumerate(args), *kwargs.items()]
    found = {
        name: known[name]
        for name, value in given
        if name in known and isinstance(value, Tensor) and not (name in ("attn_mask", 5) and value.dim() < 3)
    }
    return _Dims(found, dim, query.shape[dim] // size, outputs=(dim, 0))


def _is_position(slot: Slot) -> bool:
    return any(delta.site.role == "embedding.position" for delta in slot.deltas(tuple(slot.keys())))


def _position_dims(module: Any, slot: Slot, args: Any, kwargs: Any, size: int) -> _Dims:
    """A position table is asked once for all samples, or for each of them."""
    place, value = next(iter([*enumerate(args), *kwargs.items()]), (0, None))
    if module._peftx_product is not None and isinstance(value, Tensor) and value.dim():
        if value.dim() == 1 or value.shape[0] == 1:
            return _Dims({place: 0}, 0, 1, shared=True)
        if value.shape[0] == size:
            return _Dims({place: 0}, 0, 1)
    raise AdapterError(
        f"{slot.key}, a table of positions, was not asked for the positions of {size} samples, so each cannot get its "
        "own adapter's; run one adapter at a time, or leave this table out of the adapters"
    )
