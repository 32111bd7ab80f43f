"""`peftx predict RUN FILE...`: what a finished run says about new files, or about all of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from peftx.cli.app import State


@click.command("predict")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Answers per file.")
@click.option("--device", help="Device to use (default: the kind the run used, if there is one).")
@click.option(
    "--explain",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write for each file a picture of where its answer comes from, into a new folder.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, a line for each answer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    state: State,
    folder: Path,
    files: tuple[Path, ...],
    top: int,
    device: str | None,
    explain: Path | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Predict on FILEs with the run in folder RUN. A folder stands for the files in it.

    \b
    Example:
      peftx predict runs/mine photo.jpg --top 3
      peftx predict runs/mine photos --top 1 --csv > photos.csv
      peftx predict runs/mine photo.jpg --explain why
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json: choose one")
    registry = state.registry()
    from peftx.cli.commands.eval import require_run
    from peftx.errors import DataError

    require_run(folder)
    absent = [str(path) for path in files if not path.exists()]
    if absent:
        raise DataError(f"no such file: {', '.join(absent)}")

    from peftx.cli.output import print_csv, print_json, print_table
    from peftx.runs import predict

    found = predict(folder, files, top, registry, device=device, explain=explain)
    if as_json:
        print_json(found)
    elif as_csv:
        rows = list(rows_of(found))
        print_csv(list(dict.fromkeys(key for row in rows for key in row)), rows)
    else:
        print_table(as_table(found))


def rows_of(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row for each answer where a prediction holds a list of them, else one for each file."""
    for one in found:
        plain = {key: value for key, value in one.items() if not isinstance(value, list)}
        answers = next((v for v in one.values() if isinstance(v, list) and v and isinstance(v[0], dict)), [])
        for answer in answers or [{}]:
            yield plain | answer


def as_table(found: list[dict[str, Any]]) -> Any:
    """The rows of predictions as a table."""
    from peftx.cli.output import table

    rows = [{key: _short(value) for key, value in row.items()} for row in rows_of(found)]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return table(columns, rows)


def _short(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value
