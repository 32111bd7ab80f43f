"""`peftx results`: the runs there are, one line for each row, and a small language to choose among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftx.cli.output import note, print_csv, print_json, print_table, table
from peftx.report.board import score_text
from peftx.report.table import Column, count, seconds

if TYPE_CHECKING:
    from peftx.results.index import Entry, Index


@click.command("results")
@click.argument("folders", metavar="[FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--where",
    multiple=True,
    metavar="EXPR",
    help="Only rows that fulfil this, such as method=core.lora, data~digits, 'seed<3', 'test.accuracy>=97', "
    "option.rank=8, 'train.lr<0.01', status=complete; several are anded.",
)
@click.option(
    "--sort", metavar="KEY[,KEY]", help="Sort by these; -KEY for the largest first (default: -started)."
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many rows.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every metric and option.")
@click.option(
    "--root", type=click.Path(path_type=Path), help="Folder of runs (default: PEFTX_RUNS, else runs)."
)
@click.option("--rebuild", is_flag=True, help="Forget the index and read every run again.")
def command(
    folders: tuple[Path, ...],
    where: tuple[str, ...],
    sort: str | None,
    limit: int | None,
    as_csv: bool,
    as_json: bool,
    root: Path | None,
    rebuild: bool,
) -> None:
    """List the runs there are, or choose among them.

    Without FOLDER: all below the root, whose index is brought up to date. A FOLDER is a run or holds runs.

    \b
    Examples:
      peftx results
      peftx results --where method=core.lora --where 'test.accuracy>=97' --sort -test
      peftx results runs/bench/vision.quick --csv
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json: choose one")
    index, inside = open_index(root, folders, rebuild=rebuild)
    with index:
        keys = [key.strip() for key in (sort or "").split(",") if key.strip()]
        entries = index.entries(where, sort=keys, limit=limit, folders=inside)
    if as_json:
        print_json(
            {
                "root": str(index.root),
                "rows": [as_dict(entry) for entry in entries],
                "skipped": index.skipped,
                "notes": index.notes,
            }
        )
        return
    if as_csv:
        print_csv(list(_CSV), [_plain(entry) for entry in entries])
    elif entries:
        print_table(table(_columns(entries), _lines(entries)))
    else:
        note(f"no run of {index.root} fulfils that" if where else f"there is no run in {index.root} yet")
    tell(index)


def open_index(
    root: Path | None, folders: Sequence[Path], *, rebuild: bool = False
) -> tuple[Index, list[Path]]:
    """The index that has these folders, and which of its runs they mean: the root's own if it holds them all, else one
    in memory.

    Raises:
        RunError: a folder, or the root, is not there.
    """
    from peftx.errors import RunError
    from peftx.results.index import Index, default_root

    for folder in folders:
        if not folder.is_dir():
            raise RunError(f"no run folder at {folder}")
    home = (root if root is not None else default_root()).expanduser()
    inside = home.is_dir() and all(folder.resolve().is_relative_to(home.resolve()) for folder in folders)
    if inside or root is not None or not folders:
        return Index(home, rebuild=rebuild), list(folders)
    return Index.of(folders), []


def tell(index: Index) -> None:
    """Say on stderr what became of the index, and which folders could not be used."""
    for text in index.notes:
        note(f"note: {text}")
    for one in index.skipped:
        note(f"skipped: {one.folder}: {one.cause}")


def as_dict(entry: Entry) -> dict[str, Any]:
    """Everything the index knows of a row."""
    import dataclasses

    values = dataclasses.asdict(entry)
    return values | {"val": entry.score("val"), "test": entry.score("test")}


_CSV = (
    "folder started status method baseline task data model seed primary val test trainable stored_bytes resident_bytes "
    "peak_memory_bytes saved_bytes seconds error"
).split()


def _plain(entry: Entry) -> dict[str, Any]:
    values = {name: getattr(entry, name, None) for name in _CSV}
    scores = {"val": entry.score("val"), "test": entry.score("test")}
    return values | scores | {"baseline": "yes" if entry.baseline else "no"}


def _columns(entries: Sequence[Entry]) -> list[str | Column]:
    metrics = {(entry.primary, entry.unit) for entry in entries}
    common = f" {' '.join(next(iter(metrics)))}".rstrip() if len(metrics) == 1 else ""
    chosen = {entry.selects for entry in entries if entry.selects}
    # a board of one metric may have been selected by another on validation
    selected = f" {next(iter(chosen))}" if common and len(chosen) == 1 else common
    show = score_text("%" if {unit for _, unit in metrics} == {"%"} else "")
    columns: list[str | Column] = [
        "run",
        "started",
        "status",
        "method",
        "data",
        "model",
        Column("seed", "seed"),
        Column("val", f"val{selected}", show if selected == common else "{:.4g}".format),
        Column("test", f"test{common}", show),
        Column("trainable", "trainable", count),
        Column("seconds", "time", seconds),
    ]
    if not common:
        columns.insert(7, "metric")
    return columns


def _lines(entries: Sequence[Entry]) -> list[dict[str, Any]]:
    """Rows of the table. Options of a data set or model are shown where rows differ in them."""
    from peftx.results.labels import differing, named

    def labels(section: str) -> list[str]:
        setups: dict[str, list[Mapping[str, Any]]] = {}
        for entry in entries:
            setups.setdefault(getattr(entry, section), []).append(entry.setup.get(section, {}))
        keys = {name: sorted(differing(found)) for name, found in setups.items()}
        return [
            named(name, entry.setup.get(section, {}), keys[name])
            for entry in entries
            for name in (getattr(entry, section),)
        ]

    return [
        {
            "run": entry.folder,
            "started": entry.started[:16].replace("T", " "),
            "status": entry.status,
            "method": f"{entry.method} (baseline)" if entry.baseline else entry.method,
            "data": data,
            "model": model,
            "seed": entry.seed,
            "metric": entry.primary,
            "val": entry.score("val"),
            "test": entry.score("test"),
            "trainable": entry.trainable,
            "seconds": entry.seconds,
        }
        for entry, data, model in zip(entries, labels("data"), labels("model"), strict=True)
    ]
