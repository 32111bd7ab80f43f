"""`peftx predict RUN FILE...`: what a finished run says about new files, or about all of a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from peftx.cli.app import State
from peftx.cli.asking import Asking, asked


@click.command("predict", cls=Asking)
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Answers per file.")
@click.option("--device", help="Device to use (default: the kind the run used, if there is one).")
@click.option(
    "--explain",
    "--plot",
    "explain",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write for each file a picture of its answer, or of where that comes from, into a new folder.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the answers into a new file: JSON where its name ends in .json, else CSV.",
)
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, a line for each answer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    folder: Path,
    files: tuple[Path, ...],
    top: int,
    device: str | None,
    explain: Path | None,
    out: Path | None,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Predict on FILEs with the run in folder RUN. A folder stands for the files in it.

    What else may be asked depends on the task of the run: `peftx predict RUN --help` has it.

    \b
    Example:
      peftx predict runs/mine photo.jpg --top 3
      peftx predict runs/mine photos --top 1 --csv > photos.csv
      peftx predict runs/mine photo.jpg --explain why
      peftx predict runs/sales sales.csv --horizon 24 --plot pictures --out forecast.csv
    """
    if as_csv + as_json + (out is not None) > 1:
        raise click.UsageError("--csv, --json and --out: choose one")
    registry = ctx.ensure_object(State).registry()
    from peftx.cli.commands.eval import require_run
    from peftx.errors import DataError

    require_run(folder)
    absent = [str(path) for path in files if not path.exists()]
    if absent:
        raise DataError(f"no such file: {', '.join(absent)}")
    if out is not None and out.exists():
        raise DataError(f"--out {out} is there already: name another file")
    if out is not None and not out.parent.is_dir():
        raise DataError(f"--out {out}: there is no folder {out.parent}")

    from peftx.cli.output import note, print_csv, print_json, print_table
    from peftx.runs import predict

    found = predict(folder, files, top, registry, device=device, explain=explain, options=asked(ctx))
    for text in notes_of(found):
        note(text)
    if out is not None:
        write(out, found)
        click.echo(f"{sum(1 for _ in rows_of(found)):,} rows written to {out}")
    elif as_json:
        print_json(found)
    elif as_csv:
        print_csv(*as_csv_rows(found))
    else:
        print_table(as_table(found))
    for one in found if explain is not None and not as_csv and not as_json else ():
        click.echo(f"picture: {one['explained']}")


def rows_of(found: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One row for each answer where a prediction holds a list of them, else one for each file."""
    for one in found:
        plain = {key: value for key, value in one.items() if not isinstance(value, list)}
        answers = next((v for v in one.values() if isinstance(v, list) and v and isinstance(v[0], dict)), [])
        for answer in answers or [{}]:
            yield plain | answer


def notes_of(found: list[dict[str, Any]]) -> list[str]:
    """What a reader must know about the answers, each sentence once."""
    return list(dict.fromkeys(str(text) for one in found for text in one.get("notes", ())))


def as_csv_rows(found: list[dict[str, Any]]) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a CSV file."""
    rows = list(rows_of(found))
    return list(dict.fromkeys(key for row in rows for key in row)), rows


def write(path: Path, found: list[dict[str, Any]]) -> None:
    """Write predictions into a file: JSON where its name ends in .json, else CSV.

    Raises:
        DataError: it cannot be written.
    """
    from peftx.cli.output import csv_text, json_text
    from peftx.errors import DataError

    text = json_text(found) if path.suffix.lower() == ".json" else csv_text(*as_csv_rows(found))
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise DataError(f"cannot write --out {path}: {error.strerror or error}") from error


def as_table(found: list[dict[str, Any]]) -> Any:
    """The rows of predictions as a table."""
    from peftx.cli.output import table

    rows = [
        {key: _short(value) for key, value in row.items() if key != "explained"} for row in rows_of(found)
    ]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return table(columns, rows)


def _short(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value
