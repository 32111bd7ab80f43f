"""Before anything is trained: does what stands in the folder answer the question that is asked now? Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from peftx.bench.cells import Cell, Row
from peftx.config.toml import read as read_toml
from peftx.errors import ConfigError, RunError
from peftx.runs import folder as files
from peftx.runs.resuming import differences

__all__ = ["refuse_other_search", "refuse_others"]

#: As many cells that differ are shown.
SHOWN = 3


def refuse_others(out: Path, cells: Iterable[tuple[Row, Cell]]) -> None:
    """Refuse a bench one of whose cells was run with other settings.

    Compared is what config.toml says with what is asked now. Where the data are (`data_root`, `offline`), threads that
    prepare them, checkpoints, reports and measured costs are left out, since they change no score; so is what the
    request leaves to a recipe. The device as asked for (auto, cpu, cuda) counts: costs of two devices do not compare.

    Raises:
        RunError: one differs; the message says how.
    """
    found: list[str] = []
    more = 0
    for row, cell in cells:
        folder = out / cell.folder
        if not files.is_run(folder):
            continue
        try:
            lines = differences(row.plan_of(cell), read_toml(folder / files.CONFIG))
        except ConfigError as error:
            raise RunError(f"{error}; delete {folder}, and this cell is run again") from error
        if lines and len(found) < SHOWN:
            found.append("\n".join([f"{folder} was run with other settings than these:", *lines]))
        else:
            more += bool(lines)
    if found:
        rest = f" ({more} more cells differ)" if more else ""
        raise RunError("\n".join([*found, f"name another --out for these settings{rest}"]))


def refuse_other_search(out: Path, rows: Iterable[Row]) -> None:
    """Refuse a bench that searches where one stood that did not, or the other way round, when bench.json, which would
    say so, was lost: a run of the one looks like a run of the other.

    Raises:
        RunError: it is so.
    """
    for row in rows:
        searched = any(map(files.is_run, (out / row.folder / "search").glob("lr=*")))
        if searched and not row.points:
            raise RunError(
                f"{out / row.folder} was searched for its learning rate, and this bench searches none: name another "
                "--out"
            )
        trained = [cell.folder for cell in row.runs() if files.is_run(out / cell.folder)]
        if row.points and trained and not searched:
            raise RunError(
                f"{out / trained[0]} was trained without a search for its learning rate, and this bench searches one: "
                "name another --out"
            )
