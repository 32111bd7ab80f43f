"""`peftx report FOLDER`: the page of a run or of a bench, from the files that are there."""

from __future__ import annotations

from pathlib import Path

import click

from peftx.cli.app import State


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write (default: report.html in FOLDER)."
)
@click.option("--no-samples", is_flag=True, help="Show no single sample of the data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(state: State, folder: Path, out: Path | None, no_samples: bool, as_json: bool) -> None:
    """Write the page of a run or of a bench again.

    FOLDER is that of a run, finished or not, or that of a bench. The page is one HTML file that needs no network.

    \b
    Examples:
      peftx report runs/20260301-101500-core.lora-vision.digits
      peftx report runs/bench/vision.quick --out quick.html
      peftx report runs/mine --no-samples --out to-share.html
    """
    path = write(folder, out, state, samples=not no_samples)
    if as_json:
        from peftx.cli.output import print_json

        print_json({"folder": str(folder), "report": str(path)})
    else:
        click.echo(path)


def write(folder: Path, out: Path | None, state: State, *, samples: bool = True) -> Path:
    """Write the page of whatever `folder` holds and return where it is.

    Raises:
        RunError: it holds neither a run nor a bench, or the page cannot be written.
    """
    from peftx.errors import RunError

    if not folder.is_dir():
        raise RunError(f"no folder at {folder}: name the folder of a run or of a bench")
    if out is not None and out.is_dir():
        raise RunError(f"--out {out} is a folder; name a file, such as {out / 'report.html'}")
    if out is not None and out.is_file() and not _is_page(out):
        raise RunError(f"--out {out} is a file of another kind; name a page, or a file that is not there yet")
    registry = state.registry()
    if (folder / "bench.json").is_file():
        from peftx.bench.page import write_page

        return write_page(folder, registry, out)
    if (folder / "record.json").is_file():
        from peftx.report import write_run

        return write_run(folder, registry, out, samples=samples)
    raise RunError(
        f"{folder} holds neither a run (record.json) nor a bench (bench.json): name one of those, such as a folder in "
        "runs"
    )


def _is_page(path: Path) -> bool:
    """Whether a file is empty or begins as a page does."""
    with path.open("rb") as file:
        return b"<!doctype html>".startswith(file.read(15).lower())
