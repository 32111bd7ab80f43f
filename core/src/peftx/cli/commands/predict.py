"""`peftx predict RUN FILE...`: what a finished run says about new files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from peftx.cli.app import State


@click.command("predict")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Answers per file.")
@click.option("--device", help="Device to use (default: the kind the run used, if there is one).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    state: State, folder: Path, files: tuple[Path, ...], top: int, device: str | None, as_json: bool
) -> None:
    """Predict on FILEs with the run in folder RUN.

    \b
    Example:
      peftx predict runs/mine photo.jpg --top 3
    """
    registry = state.registry()
    from peftx.cli.commands.eval import require_run
    from peftx.errors import DataError

    require_run(folder)
    absent = [str(path) for path in files if not path.is_file()]
    if absent:
        raise DataError(f"no such file: {', '.join(absent)}")

    from peftx.cli.output import print_json, print_table
    from peftx.runs import predict

    found = predict(folder, files, top, registry, device=device)
    if as_json:
        print_json(found)
    else:
        print_table(as_table(found))


def as_table(found: list[dict[str, Any]]) -> Any:
    """Predictions as a table: one row per answer when a prediction holds a list of them, else one per
    file."""
    from peftx.cli.output import table

    rows: list[dict[str, Any]] = []
    for one in found:
        plain = {key: _short(value) for key, value in one.items() if not isinstance(value, list)}
        answers = next((v for v in one.values() if isinstance(v, list) and v and isinstance(v[0], dict)), [])
        rows += [{**plain, **{key: _short(value) for key, value in answer.items()}} for answer in answers]
        if not answers:
            rows.append(plain)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return table(columns, rows)


def _short(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value
