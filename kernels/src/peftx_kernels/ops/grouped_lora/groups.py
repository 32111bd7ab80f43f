"""Which group every row of a batch belongs to: worked out once for a batch, and shared by all layers that it passes.

Samples are few and rows are many: a layer sees a sample as one row, as a block of rows (tokens, windows of an image) or
as every B-th row (positions first). So a batch is given as the groups of its samples, and each layer asks for the
`spread` that fits its input; what is found for one layer waits for the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["Chunks", "Groups", "Piece", "group_rows"]

T = TypeVar("T")

#: Rows that a slice must have on average to be worth its own products; below, a group's rows are gathered. On a CPU
#: (768 -> 768, rank 16, 4 groups) slices of 25 rows cost 7.9 ms and gathering 8.0 ms, slices of 1.3 rows 12.3 and 7.7.
_SLICE = 16


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one group: a slice where they lie at equal distances, else their indices."""

    group: int
    rows: slice | Tensor
    count: int


@dataclass(frozen=True, slots=True)
class Chunks:
    """The rows sorted by group and cut so that no chunk has rows of two groups: what the kernels' programs go by.

    There are as many chunks as the worst distribution of the rows needs, whatever the ids are; the superfluous ones
    belong to group -1. So a grid of that size is right for every batch of this many rows, also when a CUDA graph runs
    again over other ids. All int32.
    """

    order: Tensor  # (rows,) rows sorted by group, in each group as they came
    starts: Tensor  # (groups + 1,) where each group starts in that order
    group: Tensor  # (chunks,)
    first: Tensor  # (chunks,) place of the chunk's first row in the order
    count: Tensor  # (chunks,)


class Groups:
    """The group of every row, 0..n-1, or -1 for none. Made by `group_rows`; do not change ``ids`` afterwards."""

    def __init__(
        self, ids: Tensor, n: int, samples: Groups | None = None, each: int = 1, before: int = 1
    ) -> None:
        self.ids = ids  # (rows,) int64
        self.n = n
        self._samples, self._each, self._before = samples, each, before
        self._known: dict[object, object] = {}

    def __repr__(self) -> str:
        return f"<Groups of {self.rows} rows, {self.n} groups>"

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self.ids.shape[0]

    def spread(self, each: int = 1, before: int = 1) -> Groups:
        """The groups of an input's rows, (before, samples, each) flattened: a sample has `each` rows in sequence.

        (B, T, D) is ``spread(T)``, (T, B, D) is ``spread(1, T)``. The same arguments give the same object.
        """
        if each == 1 and before == 1:
            return self
        found = self._known.get((each, before))
        if not isinstance(found, Groups):
            ids = self.ids
            if each != 1:
                ids = ids[:, None].expand(-1, each).reshape(-1)
            if before != 1:
                ids = ids.repeat(before)
            found = self._keep((each, before), Groups(ids, self.n, self, each, before))
        return found

    def ids_on(self, device: torch.device) -> Tensor:
        """The ids on a device."""
        if self.ids.device == device:
            return self.ids
        found = self._known.get(device)
        return found if isinstance(found, Tensor) else self._keep(device, self.ids.to(device))

    def pieces(self, device: torch.device) -> tuple[Piece, ...]:
        """All rows that have a group, a group's pieces in sequence. Reads ids that are on a GPU, once."""
        found = self._known.get(("pieces", device))
        if not isinstance(found, tuple):
            found = self._keep(("pieces", device), self._pieces(device))
        return found

    def members(self, device: torch.device) -> tuple[Tensor, ...]:
        """The rows of every group, as indices. Reads ids that are on a GPU, once."""
        found = self._known.get(("members", device))
        if not isinstance(found, tuple):
            found = tuple((self.ids == group).nonzero().view(-1).to(device) for group in range(self.n))
            self._keep(("members", device), found)
        return found

    def chunks(self, device: torch.device, block: int) -> Chunks:
        """The rows cut into chunks of `block` at most. Never waits for the device."""
        found = self._known.get((block, device))
        if not isinstance(found, Chunks):
            found = self._keep((block, device), _chunks(self.ids_on(device), self.n, block))
        return found

    def _keep(self, key: object, value: T) -> T:
        if not torch.compiler.is_compiling():  # a traced value is no tensor of the next call
            self._known[key] = value
        return value

    def _pieces(self, device: torch.device) -> tuple[Piece, ...]:
        slices, total = self._slices(), self._counts()
        found: list[Piece] = []
        for group in range(self.n):
            parts = slices.get(group, [])
            if len(parts) <= 2 or total[group] >= _SLICE * len(parts):
                found += [Piece(group, part, len(range(*part.indices(self.rows)))) for part in parts]
            else:
                index = (self.ids == group).nonzero().view(-1).to(device)
                found.append(Piece(group, index, index.shape[0]))
        return tuple(found)

    def _counts(self) -> list[int]:
        if self._samples is not None:
            return [count * self._each * self._before for count in self._samples._counts()]
        return torch.bincount(self.ids + 1, minlength=self.n + 1).tolist()[1:]

    def _slices(self) -> dict[int, list[slice]]:
        """The fewest slices that make up each group, where that is easily found."""
        whole = self._samples or self
        found: dict[int, list[slice]] = {}
        if self._before == 1 or whole.rows == 1:
            each = self._each * (self._before if whole.rows == 1 else 1)
            values, lengths = torch.unique_consecutive(whole.ids, return_counts=True)
            at = 0
            for group, length in zip(values.tolist(), lengths.tolist(), strict=True):
                found.setdefault(group, []).append(slice(at * each, (at + length) * each))
                at += length
        else:
            for sample, group in enumerate(whole.ids.tolist()):
                for row in range(sample * self._each, (sample + 1) * self._each):
                    found.setdefault(group, []).append(slice(row, None, whole.rows * self._each))
        return found


def group_rows(ids: Sequence[int] | Tensor, n: int) -> Groups:
    """Return the groups of a batch, for `grouped_lora`.

    Args:
        ids: the group of every sample, 0..n-1, or -1 for none. A list, or an integer tensor; one on a GPU is sorted
            there and the kernels never wait for its values, but then these are not checked.
        n: how many groups there are; any of them may be empty.

    Raises:
        ValueError: ids that are no list of numbers, or out of range.
    """
    given = torch.as_tensor(ids, dtype=None if len(ids) else torch.int64)
    if given.dim() != 1 or given.dtype.is_floating_point or given.dtype.is_complex:
        raise ValueError(
            f"ids have shape {tuple(given.shape)} and dtype {given.dtype}; expected one integer for each sample, (B,)"
        )
    if given.device.type == "cpu" and given.numel() and not -1 <= int(given.min()) <= int(given.max()) < n:
        raise ValueError(
            f"ids lie between {int(given.min())} and {int(given.max())}; expected 0 to {n - 1}, or -1 for none"
        )
    return Groups(given.to(torch.int64), n)


def _chunks(ids: Tensor, n: int, block: int) -> Chunks:
    ordered, order = torch.sort(ids, stable=True)
    starts = torch.searchsorted(ordered, torch.arange(n + 1, device=ids.device))
    chunks = (starts.diff() + block - 1) // block
    ends = chunks.cumsum(0)
    # every group may end in a chunk that is not full
    most = -(-ids.shape[0] // block) + min(n, ids.shape[0])
    chunk = torch.arange(most, device=ids.device)
    group = torch.searchsorted(ends, chunk, right=True)
    there, of = group < n, group.clamp(max=n - 1)
    first = starts[of] + (chunk - (ends - chunks)[of]) * block
    count = (starts[of + 1] - first).clamp(max=block)
    found = (order, starts, torch.where(there, group, -1), first, torch.where(there, count, 0))
    return Chunks(*(part.to(torch.int32) for part in found))
