"""`peftx merge RUN`: the adapter written into the weights, measured, as a plain state dict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from peftx.cli.app import State


@click.command("merge")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="New folder for the result (default: RUN/merged)."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Largest difference of an output, relative to its largest value (default: by dtype, 1e-4 for float32).",
)
@click.option("--force", is_flag=True, help="Merge whatever the comparison says.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder that already holds the data.")
@click.option("--device", help="Device to merge on (default: the kind the run used, if there is one).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    state: State,
    folder: Path,
    out: Path | None,
    tolerance: float | None,
    force: bool,
    data_root: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Merge the adapter of the run in folder RUN into its base model, and write model.safetensors.

    The merged model is compared with the adapted one on a batch of the validation split; over tolerance, nothing is
    written. `peftx export RUN --merged` writes what timm, transformers or whisper load themselves.

    \b
    Example:
      peftx merge runs/mine --out merged
    """
    registry = state.registry()
    from peftx.cli.commands.eval import require_run

    require_run(folder)
    from peftx.runs import export_run

    found = export_run(
        folder,
        out or folder / "merged",
        registry,
        form="torch",
        tolerance=tolerance,
        force=force,
        data_root=data_root,
        device=device,
    )
    show(found, as_json)


def show(found: Any, as_json: bool) -> None:
    """Print what a merge did and where its result is."""
    from peftx.cli.output import print_json

    if as_json:
        print_json(found.to_dict())
        return
    click.echo(found.report.render())
    click.echo(f"\nwritten: {found.file}\nload it: {found.load}")
