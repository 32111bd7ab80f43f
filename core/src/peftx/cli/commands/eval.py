"""`peftx eval RUN`: the recorded score again, and whether it came out the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from peftx.cli.app import State
from peftx.report.table import Column


@click.command("eval")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder that already holds the data.")
@click.option("--device", help="Device to score on (default: the kind the run used, if there is one).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(state: State, folder: Path, data_root: Path | None, device: str | None, as_json: bool) -> None:
    """Score the run in folder RUN again on every split and compare with its record.

    Exits 1 when a score differs from the recorded one.

    \b
    Example:
      peftx eval runs/20260301-101500-core.lora-vision.digits
    """
    registry = state.registry()
    require_run(folder)

    from peftx.cli.output import print_json, print_table, table
    from peftx.cli.progress import make_progress
    from peftx.runs import evaluate

    with make_progress() as progress:
        found = evaluate(folder, registry, progress, data_root=data_root, device=device)
    if as_json:
        print_json(
            {
                "folder": str(found.folder),
                "recorded": found.recorded,
                "measured": found.measured,
                "exact": found.exact,
                "changed": list(found.changed),
            }
        )
    else:
        print_table(table(["split", "metric", *_FIGURES], rows(found.recorded, found.measured)))
        click.echo(found.summary())
    if not found.exact:
        raise click.exceptions.Exit(1)


_FIGURES = tuple(Column(key, key) for key in ("recorded", "measured"))


def rows(recorded: Mapping[str, Any], measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every metric then and now: short where the two are equal, to the last digit where they are not."""
    found = []
    for split, values in measured.items():
        for name, value in values.items():
            former = recorded[split].get(name)
            figures = (short(former), short(value)) if former == value else (former, value)
            found.append({"split": split, "metric": name, "recorded": figures[0], "measured": figures[1]})
    return found


def short(value: Any) -> str:
    """Whole numbers in full, others to six significant digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def require_run(folder: Path) -> None:
    """Refuse a folder that is no run before torch is imported."""
    from peftx.errors import RunError
    from peftx.runs.folder import is_run

    if not folder.is_dir():
        raise RunError(f"no run folder at {folder}")
    if not is_run(folder):
        what = ""
        if (folder / "adapter.json").is_file():
            what = "; it holds an adapter, which peftx.artifacts.load(model, folder) reads"
        raise RunError(f"{folder} is not the folder of a run: it has no config.toml{what}")
