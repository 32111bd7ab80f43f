"""Values at fixed entries of some weights, and who has written into which weight last."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from peftx_kernels.table import KernelError

__all__ = ["SparseTable"]

_LARGE = 2**31

#: weight -> what is written into it
_written: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_order = itertools.count()


@dataclass(slots=True)
class _Stack:
    """The tables written into one weight, the last one on top, and the weight's version as the last act left it."""

    tables: list[SparseTable] = field(default_factory=list)
    version: int = 0


class SparseTable:
    """One sparse adapter: for each of its weights the entries it changes and what it puts there.

    Everything of one kind is one flat tensor, so that a GPU needs one launch for all weights; `parts_of` gives a
    weight's share of it. `originals` holds what was there before, while the adapter is written. A model may be moved to
    another device, cast, copied (`copy.deepcopy`) or pickled with its table, written or not.

    Args:
        targets: the weights, contiguous, on one device, no two of one memory.
        indices: of each weight the flat indices, ascending and distinct, int32 or int64.
        values: as many; of any floating dtype, at best the weight's.
        add: add the values to what is there (the delta form), or put them in its place.

    Raises:
        KernelError: weights that are not of this kind, indices out of order or range, or of another number than values.
    """

    def __init__(
        self,
        targets: Sequence[Tensor],
        indices: Sequence[Tensor],
        values: Sequence[Tensor],
        *,
        add: bool = True,
    ) -> None:
        self.targets, self.add = list(targets), add
        self.counts = [len(index) for index in indices]
        self._refuse(indices, values)
        large = any(target.numel() >= _LARGE for target in targets)
        kind = torch.int64 if large else torch.int32
        device = self.targets[0].device if targets else None
        self.indices = _joined([index.to(device, kind) for index in indices], kind)
        self.values = _joined([value.detach().to(device) for value in values], torch.float32)
        self.originals: list[Tensor] | None = None
        #: what an implementation wants to find again
        self.plan: object = None
        #: when it was written
        self._turn = -1
        self._refuse_order()

    def __repr__(self) -> str:
        state = "written" if self.written else "not written"
        return f"<SparseTable of {sum(self.counts)} entries in {len(self.targets)} weights, {state}>"

    @property
    def written(self) -> bool:
        """Whether the adapter is in its weights."""
        return self.originals is not None

    def parts_of(self, flat: Tensor) -> tuple[Tensor, ...]:
        """The shares of the weights in one of the flat tensors."""
        return flat.split(self.counts)

    def forget(self) -> None:
        """Take a written adapter for taken out: its weights were loaded again, or are of no more use."""
        if self.written:
            self.originals = None
            self.note_out()

    def follow(self) -> None:
        """Go where the weights have gone: to another device, and what is to be put back to another type."""
        if not self.targets:
            return
        device = self.targets[0].device
        if self.indices.device != device:
            self.indices, self.values, self.plan = self.indices.to(device), self.values.to(device), None
        if self.originals is not None:
            self.originals = [o.to(t) for o, t in zip(self.originals, self.targets, strict=True)]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "plan": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.written:  # a copy is in the copies of the weights
            self.note_in()

    def refuse_in(self, off: SparseTable | None) -> None:
        """Raise `KernelError` where the adapter is written already, or lies on one whose weight was changed."""
        if self.written and self is not off:
            raise KernelError("this sparse adapter is written into its weights already; take it out first")
        for place in range(len(self.targets)):
            self._refuse_changed(place)

    def refuse_out(self) -> None:
        """Raise `KernelError` unless the adapter is written, on top, and its weights are as it left them."""
        if not self.written:
            raise KernelError(
                "this sparse adapter is not written into its weights, so it cannot be taken out"
            )
        for place, target in enumerate(self.targets):
            if _written[target].tables[-1] is not self:
                raise KernelError(
                    f"another sparse adapter was written into weight {place}, {tuple(target.shape)}, after this one; "
                    "take out the last one first"
                )
            self._refuse_changed(place)

    def note_in(self) -> None:
        """Remember that the adapter is on top of its weights now."""
        if self._turn < 0:
            self._turn = next(_order)
        for target in self.targets:
            stack = _written.setdefault(target, _Stack())
            bisect.insort(stack.tables, self, key=attrgetter("_turn"))  # copies come in any order
            stack.version = _version(target)

    def note_out(self) -> None:
        """Remember that it no longer is; the one below finds its weight as it left it."""
        self._turn = -1
        for target in self.targets:
            stack = _written[target]
            stack.tables.remove(self)
            stack.version = _version(target)
            if not stack.tables:
                del _written[target]

    def _refuse_changed(self, place: int) -> None:
        target = self.targets[place]
        stack = _written.get(target)
        if stack is not None and stack.version != _version(target):
            raise KernelError(
                f"weight {place}, {tuple(target.shape)}, was changed while a sparse adapter was in it, so what was "
                "there before cannot be put back; load the base weights again and call the table's forget()"
            )

    def _refuse(self, indices: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        if not len(self.targets) == len(indices) == len(values):
            raise KernelError(
                f"{len(self.targets)} weights, {len(indices)} tensors of indices and {len(values)} of values were "
                "given; expected as many of each"
            )
        seen: set[int] = set()
        for place, (target, index, value) in enumerate(zip(self.targets, indices, values, strict=True)):
            name = f"weight {place}, {tuple(target.shape)} {str(target.dtype).removeprefix('torch.')},"
            if not target.is_floating_point() or target.dtype.itemsize < 2:
                raise KernelError(
                    f"{name} is quantised or no floating type; sparse adapters need real values"
                )
            if not target.is_contiguous():
                raise KernelError(
                    f"{name} is not contiguous, so it has no flat indices; write into a contiguous one"
                )
            if target.device != self.targets[0].device or target.is_meta:
                raise KernelError(
                    f"{name} is on {target.device}; expected all weights on one device that has memory"
                )
            memory = target.untyped_storage().data_ptr()
            if memory in seen:
                raise KernelError(f"{name} shares its memory with another one of the weights; give it once")
            seen.add(memory)
            if (
                index.dim() != 1
                or index.dtype not in (torch.int32, torch.int64)
                or value.shape != index.shape
            ):
                raise KernelError(
                    f"indices of {name} are {tuple(index.shape)} {index.dtype} and values {tuple(value.shape)}; "
                    "expected (K,) int32 or int64, and (K,)"
                )

    def _refuse_order(self) -> None:
        """Ascending indices are distinct, and in range if their ends are. One look, so one wait for a GPU."""
        wrong = []
        for target, index in zip(self.targets, self.parts_of(self.indices), strict=True):
            if len(index):
                wrong.append((index[1:] <= index[:-1]).any() | (index[0] < 0) | (index[-1] >= target.numel()))
        if wrong and bool(torch.stack(wrong).any()):
            place = int(torch.stack(wrong).nonzero()[0])
            shapes = [tuple(t.shape) for t, count in zip(self.targets, self.counts, strict=True) if count]
            raise KernelError(
                f"the indices of a weight {shapes[place]} are not ascending, distinct and from 0 to its last entry; "
                "sort them, and their values with them"
            )


def _joined(parts: list[Tensor], kind: torch.dtype) -> Tensor:
    return torch.cat(parts) if parts else torch.empty(0, dtype=kind)


def _version(target: Tensor) -> int:
    return 0 if target.is_inference() else target._version
