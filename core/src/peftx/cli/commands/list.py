"""`peftx list`: what is installed, and which packs could be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from peftx.cli.app import State
from peftx.cli.output import heading, note, print_json, print_table, table
from peftx.errors import UnknownNameError, near_matches
from peftx.plugins.registry import Entry, Registry
from peftx.report.table import Column, count


@click.command("list")
@click.argument("domain", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(state: State, domain: str | None, as_json: bool) -> None:
    """List methods, tasks, data sets, models and packs, or those of one DOMAIN.

    \b
    Examples:
      peftx list
      peftx list vision --json
    """
    registry = state.registry()
    if domain is not None and domain not in registry.domains:
        registry.refuse_unloaded(domain)
        raise UnknownNameError(
            f"no domain is called {domain!r}.{near_matches(domain, registry.domains)}"
            f" Installed: {', '.join(registry.domains)}."
        )
    found = inventory(registry, domain)
    if as_json:
        print_json(found)
        return
    shown = [title for title in _COLUMNS if found[title]]
    for title in shown:
        if title != shown[0]:
            print()
        heading(title)
        print_table(table(_COLUMNS[title], found[title]))
    _how_to_get(registry, domain)
    failed = [info for info in registry.plugins if info.status not in ("ok", "blocked")]
    for info in failed:
        note(f"not loaded: {info.domain} ({info.label}): {info.cause}")


_COLUMNS: Mapping[str, list[str | Column]] = {
    "methods": ["name", "kind", "status", "summary"],
    "tasks": ["name", "data", "model", "summary"],
    "data": ["name", "aliases", "size", "licence", "summary"],
    "models": ["name", Column("parameters", "parameters", count), "licence", "summary"],
    "suites": ["name", "summary"],
    "packs": ["domain", "distribution", "version", "state", "summary"],
}


def inventory(registry: Registry, domain: str | None = None) -> dict[str, list[dict[str, Any]]]:
    """Everything there is, as rows by kind."""

    def own(entries: Mapping[str, Entry[Any]]) -> list[Any]:
        return [entry.spec for entry in entries.values() if domain in (None, entry.domain)]

    return {
        "methods": [
            {"name": s.name, "kind": s.kind, "status": s.status, "summary": s.summary, "paper": s.paper}
            for s in own(registry.methods)
        ],
        "tasks": [
            {"name": s.name, "data": s.default_data, "model": s.default_model, "summary": s.summary}
            for s in own(registry.tasks)
        ],
        "data": [
            {
                "name": s.name + (":PATH" if s.parametric else ""),
                "aliases": list(s.aliases),
                "size": s.size,
                "licence": s.licence,
                "summary": s.summary + (" (synthetic)" if s.synthetic else ""),
                "synthetic": s.synthetic,
            }
            for s in own(registry.datasets)
        ],
        "models": [
            {"name": s.name, "parameters": s.params, "licence": s.licence, "summary": s.summary}
            for s in own(registry.models)
        ],
        "suites": [{"name": s.name, "summary": s.summary} for s in own(registry.suites)],
        "packs": [row for row in packs(registry) if domain in (None, row["domain"])],
    }


def packs(registry: Registry) -> list[dict[str, Any]]:
    """Installed plugins, then first-party packs that are not."""
    from peftx.plugins.catalogue import CATALOGUE

    installed = [
        {
            "domain": info.domain,
            "distribution": info.distribution,
            "version": info.version,
            "state": "installed" if info.status == "ok" else info.status,
            "summary": CATALOGUE[info.domain].summary if info.domain in CATALOGUE else "",
        }
        for info in registry.plugins
        if info.domain != "core"
    ]
    missing = [
        {
            "domain": pack.domain,
            "distribution": pack.distribution,
            "version": None,
            "state": "not installed" if pack.state == "available" else pack.state,
            "summary": pack.summary,
        }
        for pack in registry.missing_packs()
    ]
    return installed + missing


def _how_to_get(registry: Registry, domain: str | None) -> None:
    if domain is not None:
        return
    available = [pack for pack in registry.missing_packs() if pack.state == "available"]
    if available:
        print()
    if len(registry.plugins) == 1:
        print("no packs are installed; core alone has no task to run")
    for pack in available:
        print(f"to get {pack.domain}: {pack.command}")
