"""`peftx export RUN`: what other libraries read: the merged model, or the adapter for HF PEFT."""

from __future__ import annotations

from pathlib import Path

import click

from peftx.cli.app import State
from peftx.errors import ConfigError


@click.command("export")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--merged", is_flag=True, help="The merged model, as its own library loads it without peftx.")
@click.option("--to", type=click.Choice(["peft"]), help="The adapter, in the format of HF PEFT.")
@click.option(
    "--form",
    type=click.Choice(["auto", "timm", "transformers", "whisper", "torch"]),
    default="auto",
    show_default=True,
    help="With --merged: for which library.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="New folder (default: RUN/exported or RUN/peft)."
)
@click.option("--tolerance", type=click.FloatRange(min=0), help="With --merged: as for `peftx merge`.")
@click.option("--force", is_flag=True, help="With --merged: as for `peftx merge`.")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder that already holds the data.")
@click.option("--device", help="With --merged: device to merge on.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    state: State,
    folder: Path,
    merged: bool,
    to: str | None,
    form: str,
    out: Path | None,
    tolerance: float | None,
    force: bool,
    data_root: Path | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Write the result of the run in folder RUN for other libraries.

    \b
    Examples:
      peftx export runs/mine --merged
      peftx export runs/mine --to peft --out my-adapter
    """
    if merged is (to is not None):
        raise ConfigError(
            "say what to export: --merged for the model, or --to peft for the adapter; one of them"
        )
    if to and (tolerance is not None or force or form != "auto"):
        raise ConfigError("--form, --tolerance and --force go with --merged; an adapter is written as it is")
    registry = state.registry()
    from peftx.cli.commands.eval import require_run

    require_run(folder)
    if to:
        from peftx.cli.output import print_json
        from peftx.runs import peft_run

        place = peft_run(folder, out or folder / "peft", registry)
        if as_json:
            print_json({"folder": str(place), "form": "peft"})
        else:
            click.echo(f"written: {place}\nload it: peft.PeftModel.from_pretrained(model, {str(place)!r})")
        return
    from peftx.cli.commands.merge import show
    from peftx.runs import export_run

    found = export_run(
        folder,
        out or folder / "exported",
        registry,
        form=form,
        tolerance=tolerance,
        force=force,
        data_root=data_root,
        device=device,
    )
    show(found, as_json)
