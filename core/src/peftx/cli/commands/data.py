"""`peftx data`: which data sets there are, which are here, and whether one is what it claims to be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from peftx.cli.app import State
from peftx.cli.output import note, print_json, print_table, table
from peftx.errors import UserError
from peftx.plugins.descriptors import DatasetSpec
from peftx.plugins.registry import Entry, Registry


@click.group("data", invoke_without_command=True)
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder that already holds the data.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, data_root: Path | None, as_json: bool) -> None:
    """List data sets: licence, size, whether the files are here, and whether the loader was verified.

    "unverified" means that the loader was never run on the real files.

    \b
    Examples:
      peftx data
      peftx data --data-root /data
      peftx data check digits
    """
    if ctx.invoked_subcommand is not None:
        return
    registry = ctx.ensure_object(State).registry()
    rows, cache = survey(registry, data_root)
    if as_json:
        print_json({"cache": str(cache), "data": rows})
        return
    if rows:
        print_table(table(["name", "aliases", "licence", "size", "here", "loader", "source"], rows))
    else:
        note("no installed pack brings a data set; see `peftx list`")
    where = "PEFTX_DATA" if os.environ.get("PEFTX_DATA") else "set PEFTX_DATA to move it"
    print(f"\ndownloads go to {cache} ({where})")


@command.command("check")
@click.argument("name")
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder that already holds the data.")
@click.option("--offline", is_flag=True, help="Never touch the network.")
@click.option(
    "--set", "given", multiple=True, metavar="OPTION=VALUE", help="An option of the data set, such as fold=2."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def check(
    state: State, name: str, data_root: Path | None, offline: bool, given: tuple[str, ...], as_json: bool
) -> None:
    """Load data set NAME and compare its counts and classes with the published ones; read every sample.

    Exits 1 when something disagrees.

    \b
    Examples:
      peftx data check cifar10 --data-root /data
      peftx data check vtab:cifar --data-root /data --set split=tune
    """
    registry = state.registry()
    entry = registry.resolve_dataset(name)

    from peftx.cli.setting import parse_settings
    from peftx.data.checks import check_dataset
    from peftx.data.contract import DataContext

    context = DataContext.create(data_root, offline=offline)
    config = _config(entry, parse_settings(given))
    if entry.spec.locate:
        entry.load("locate")(config, context)
    report = check_dataset(entry.load()(config, context))
    if as_json:
        print_json(report.to_dict())
    else:
        rows = [
            {"check": c.what, "published": c.expected, "found": c.found, "ok": c.ok} for c in report.checks
        ]
        print_table(table(["check", "published", "found", "ok"], rows))
        source = f"; published figures: {report.source}" if report.source else "; no figures are published"
        print(f"{report.name}: {'ok' if report.ok else 'DIFFERS'}{source}")
        if report.copy:
            print(report.copy)
    if not report.ok:
        raise click.exceptions.Exit(1)


def survey(registry: Registry, data_root: Path | None = None) -> tuple[list[dict[str, Any]], Path]:
    """One row per data set, and the cache folder. Looks for files, never at the network."""
    from peftx.data.contract import DataContext

    context = DataContext.create(data_root, offline=True)
    return [_row(entry, context) for entry in registry.datasets.values()], context.cache


def _row(entry: Entry[DatasetSpec], context: Any) -> dict[str, Any]:
    spec = entry.spec
    here: bool | None = True
    missing = ""
    if spec.parametric:
        here = None
    elif spec.locate:
        try:
            entry.load("locate")(_config(entry), context)
        except UserError as error:
            here, missing = False, str(error)
    kinds = ["verified" if spec.verified else "unverified"] + ["synthetic"] * spec.synthetic
    return {
        "name": spec.name + (":PATH" if spec.parametric else ""),
        "summary": spec.summary,
        "aliases": list(spec.aliases),
        "licence": spec.licence,
        "size": spec.size,
        "here": here,
        "missing": missing,
        "loader": ", ".join(kinds),
        "verified": spec.verified,
        "synthetic": spec.synthetic,
        "source": spec.source,
    }


def _config(entry: Entry[DatasetSpec], settings: dict[str, Any] | None = None) -> Any:
    from peftx.cli.setting import config_of

    schema = entry.load("config") if entry.spec.config else None
    argument = {"path": entry.argument} if entry.argument else {}
    return config_of(schema, {**argument, **(settings or {})}, entry.name)
