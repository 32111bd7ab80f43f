from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftx_kernels import Groups, group_rows

CPU = torch.device("cpu")
IDS = ([0], [-1, -1], [1, 0, 2, 2, -1, 0], [2, 2, 0, 0], [-1] * 3 + [1] * 70 + [0] * 2, [])


def covered(groups: Groups) -> list[int]:
    """The group of every row, as the pieces say."""
    found = [-1] * groups.rows
    for piece in groups.pieces(CPU):
        if isinstance(piece.rows, slice):
            rows = list(range(*piece.rows.indices(groups.rows)))
        else:
            rows = piece.rows.tolist()
        assert len(rows) == piece.count > 0
        for row in rows:
            assert found[row] == -1, "a row is in two pieces"
            found[row] = piece.group
    return found


@pytest.mark.parametrize("ids", IDS, ids=str)
@pytest.mark.parametrize("each", [1, 3, 40])
@pytest.mark.parametrize("before", [1, 2, 50])
def test_pieces_cover_each_row_once(ids: list[int], each: int, before: int) -> None:
    groups = group_rows(ids, 3).spread(each, before)
    assert groups.ids.tolist() == [g for _ in range(before) for g in ids for _ in range(each)]
    assert covered(groups) == groups.ids.tolist()


def test_rows_in_sequence_are_slices_and_scattered_ones_are_not() -> None:
    tokens = group_rows([0, 1, 0, 0], 2).spread(20).pieces(CPU)
    assert [(p.group, p.rows) for p in tokens] == [
        (0, slice(0, 20)),
        (0, slice(40, 80)),
        (1, slice(20, 40)),
    ]
    positions_first = group_rows([0, 1], 2).spread(1, before=30).pieces(CPU)
    assert [(p.group, p.rows) for p in positions_first] == [(0, slice(0, None, 2)), (1, slice(1, None, 2))]
    scattered = group_rows([0, 1] * 10, 2).pieces(CPU)
    assert [isinstance(p.rows, Tensor) for p in scattered] == [True, True]


def test_what_is_found_is_found_once() -> None:
    groups = group_rows([0, 1, 0], 2)
    assert groups.spread(1) is groups
    assert groups.spread(5) is groups.spread(5) is not groups.spread(5, 2)
    assert groups.spread(5).pieces(CPU) is groups.spread(5).pieces(CPU)
    assert groups.chunks(CPU, 16) is groups.chunks(CPU, 16) is not groups.chunks(CPU, 64)


@pytest.mark.parametrize("ids", [ids for ids in IDS if ids], ids=str)
@pytest.mark.parametrize("block", [16, 64])
def test_chunks_hold_rows_of_one_group(ids: list[int], block: int) -> None:
    groups = group_rows(ids, 3)
    chunks = groups.chunks(CPU, block)
    found = [-1] * len(ids)
    for group, first, count in zip(
        *(t.tolist() for t in (chunks.group, chunks.first, chunks.count)), strict=True
    ):
        assert (group >= 0) == (count > 0) and count <= block
        for row in chunks.order[first : first + count].tolist():
            assert found[row] == -1
            found[row] = group
    assert found == ids
    for group in range(3):
        rows = chunks.order[chunks.starts[group] : chunks.starts[group + 1]].tolist()
        assert rows == [row for row, other in enumerate(ids) if other == group]
    # the same for any other ids of as many rows: what a graph was captured with still fits
    assert len(chunks.group) == len(group_rows([0] * len(ids), 3).chunks(CPU, block).group)


def test_wrong_ids_are_refused() -> None:
    for ids in ([0, 3], [-2]):
        with pytest.raises(ValueError, match="expected 0 to 2, or -1"):
            group_rows(ids, 3)
    with pytest.raises(ValueError, match=r"shape \(1, 2\)"):
        group_rows(torch.zeros(1, 2, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match=r"dtype torch\.float32"):
        group_rows(torch.zeros(2), 3)
