"""Values at fixed entries of some weights, and who has written into which weight last."""

from __future__ import annotations

import bisect
import itertools
import weakref
from collections.abc import Sequence
from operator import itemgetter
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


class _Stack:
    """The tables written into one weight, the last one on top, and the weight's version as the last act left it.

    References are weak: a table holds its weights, and nobody else can take it out.
    """

    def __init__(self) -> None:
        self._tables: list[tuple[int, weakref.ref[SparseTable]]] = []
        self.version = 0

    @property
    def top(self) -> SparseTable | None:
        """The table that can be taken out; None when the last one is gone."""
        while self._tables:
            table = self._tables[-1][1]()
            if table is not None:
                return table
            self._tables.pop()
        return None

    def add(self, turn: int, table: SparseTable) -> None:
        """Put a table where its turn was: copies come in any order."""
        bisect.insort(self._tables, (turn, weakref.ref(table)), key=itemgetter(0))

    def remove(self, table: SparseTable) -> None:
        self._tables = [one for one in self._tables if one[1]() not in (None, table)]


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
        device = self.targets[0].device if targets else torch.device("cpu")
        kind = self._kind(device)
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
            self.indices, self.values = self.indices.to(device, self._kind(device)), self.values.to(device)
            self.plan = None
        if self.originals is not None:
            self.originals = [o.to(t) for o, t in zip(self.originals, self.targets, strict=True)]

    def _kind(self, device: torch.device) -> torch.dtype:
        """Four bytes an index, but on a CPU, where library calls want eight and would convert them every time."""
        large = any(target.numel() >= _LARGE for target in self.targets)
        return torch.int64 if large or device.type == "cpu" else torch.int32

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
            if _written[target].top is not self:
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
            stack.add(self._turn, self)
            stack.version = _version(target)

    def note_out(self) -> None:
        """Remember that it no longer is; the one below finds its weight as it left it."""
        self._turn = -1
        for target in self.targets:
            stack = _written[target]
            stack.remove(self)
            stack.version = _version(target)
            if stack.top is None:
                del _written[target]

    def _refuse_changed(self, place: int) -> None:
        target = self.targets[place]
        stack = _written.get(target)
        if stack is not None and stack.top is not None and stack.version != _version(target):
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
        places = [place for place, count in enumerate(self.counts) if count]
        ends = list(itertools.accumulate(self.counts[place] for place in places))
        if not places:
            return
        device = self.indices.device
        last = torch.tensor(ends, device=device) - 1
        first = torch.tensor([0, *ends[:-1]], device=device)
        sizes = torch.tensor([self.targets[place].numel() for place in places], device=device)
        step = self.indices[1:] > self.indices[:-1]
        step[last[:-1]] = True  # from one weight to the next
        outside = (self.indices[first] < 0) | (self.indices[last] >= sizes)
        if not bool(step.all() & ~outside.any()):
            falls = torch.searchsorted(last, step.logical_not().nonzero().flatten())
            place = places[int(torch.cat((outside.nonzero().flatten(), falls)).min())]
            raise KernelError(
                f"the indices of weight {place}, {tuple(self.targets[place].shape)}, are not ascending, distinct and "
                "from 0 to its last entry; sort them, and their values with them"
            )


def _joined(parts: list[Tensor], kind: torch.dtype) -> Tensor:
    return torch.cat(parts) if parts else torch.empty(0, dtype=kind)


def _version(target: Tensor) -> int:
    return 0 if target.is_inference() else target._version
