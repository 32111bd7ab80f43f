"""`peftx plugins`: every installed plugin, loaded or not, with the cause when not."""

from __future__ import annotations

from typing import Any

import click

from peftx.cli.app import State
from peftx.cli.output import note, print_json, print_table, table
from peftx.plugins.loader import PluginInfo
from peftx.report.table import Column


@click.command("plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(state: State, as_json: bool) -> None:
    """List installed plugins and whether they loaded.

    A plugin that did not load stops nothing else; this command exits 0 all the same. With --debug the
    traceback of a failed import goes to stderr.
    """
    infos = state.registry().plugins
    rows = [row(info) for info in infos]
    if state.debug:
        for info in infos:
            if info.trace:
                note(f"{info.domain} ({info.label}):\n{info.trace}")
    if as_json:
        print_json(rows)
        return
    columns: list[str | Column] = [
        "domain",
        "distribution",
        "version",
        "api",
        "status",
        Column("seconds", "seconds", "{:.3f}".format),
    ]
    if any(entry["cause"] for entry in rows):
        columns.append("cause")
    print_table(table(columns, rows))
    for entry in rows:
        for warning in entry["warnings"]:
            note(f"{entry['domain']}: {warning}")


def row(info: PluginInfo) -> dict[str, Any]:
    """One plugin as a row."""
    return {
        "domain": info.domain,
        "distribution": info.distribution,
        "version": info.version,
        "api": info.api,
        "status": info.status,
        "cause": info.cause,
        "seconds": round(info.seconds, 4),
        "slow": info.slow,
        "imports_torch": info.imports_torch,
        "warnings": complaints(info),
    }


def complaints(info: PluginInfo) -> list[str]:
    """What is wrong with a plugin that loads all the same."""
    found = list(info.warnings)
    if info.slow:
        found.append(f"slow, its import took {info.seconds:.1f} s and delays every command")
    if info.imports_torch:
        found.append("imports torch at the top, which delays every command; import it inside the functions")
    return found
