"""Before anything is trained: does what stands in the folder answer the question that is asked now? Torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from peftx.bench.cells import Cell, Row
from peftx.config.toml import read as read_toml
from peftx.errors import ConfigError, RunError
from peftx.runs import folder as files
from peftx.runs.resuming import differences

__all__ = ["refuse_others"]

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
