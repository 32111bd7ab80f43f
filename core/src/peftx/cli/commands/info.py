"""`peftx info NAME`: the full card of a method, task, data set, model or suite."""

from __future__ import annotations

from typing import Any

import click

from peftx.cli.app import State
from peftx.cli.output import heading, print_json, print_table, table
from peftx.errors import UnknownNameError, near_matches
from peftx.plugins.descriptors import Needs, Offers
from peftx.plugins.registry import Entry, Registry

#: More published scores than these are counted, not listed.
MANY = 20


@click.command("info")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(state: State, name: str, as_json: bool) -> None:
    """Show everything known about NAME: summary, paper, licence, needs, and options with their defaults.

    \b
    Examples:
      peftx info core.lora
      peftx info digits --json
      peftx info vision/quick
    """
    registry = state.registry()
    cards = [card(kind, entry) for kind, entry in find(registry, name)]
    if as_json:
        print_json(cards)
        return
    for number, one in enumerate(cards):
        if number:
            print()
        _show(one)


def find(registry: Registry, name: str) -> list[tuple[str, Entry[Any]]]:
    """Everything called `name`, by kind. Raises UnknownNameError or PluginError when there is nothing."""
    bare = name.partition(":")[0]
    bare = bare.replace("/", ".", 1)  # a suite is typed domain/name
    found: list[tuple[str, Entry[Any]]] = []
    known: list[str] = []
    for kind, entries in _tables(registry).items():
        known += entries
        for full, entry in entries.items():
            names = {full, full.partition(".")[2], *getattr(entry.spec, "aliases", ())}
            names |= {f"{entry.domain}.{alias}" for alias in getattr(entry.spec, "aliases", ())}
            if bare in names:
                found.append((kind, entry))
    exact = [(kind, entry) for kind, entry in found if entry.name == bare]
    if found:
        return exact or found
    registry.refuse_unloaded(name)
    if name in registry.domains:
        raise UnknownNameError(f"{name} is a domain: `peftx list {name}` shows what it has")
    raise UnknownNameError(f"nothing is called {name!r}.{near_matches(name, known)} See `peftx list`.")


def card(kind: str, entry: Entry[Any]) -> dict[str, Any]:
    """The card as plain data, options included."""
    import dataclasses

    from peftx.config.schema import rows

    spec = entry.spec
    values = {
        field.name: getattr(spec, field.name)
        for field in dataclasses.fields(spec)
        if field.name not in ("target", "config", "locate", "models", "averages")
    }
    for key, value in values.items():
        if isinstance(value, Needs | Offers):
            values[key] = dataclasses.asdict(value)
    schema = entry.load("config") if getattr(spec, "config", "") else None
    about = (schema.__doc__ or "").strip() if schema is not None else ""
    if kind == "suite":
        about, more = _suite(entry)
        values |= more
    return {
        "kind_of_thing": kind,
        **values,
        "plugin": entry.plugin.label,
        "about": " ".join(about.split()),
        "options": [option.to_dict() for option in rows(schema)],
    }


def _suite(entry: Entry[Any]) -> tuple[str, dict[str, Any]]:
    """What a suite says about itself, and its grid."""
    from peftx.bench.suites import load_suite, slashed
    from peftx.config.suite import label

    suite = load_suite(entry)
    return suite.about, {
        "task": suite.task,
        "task_options": suite.task_options,
        "data": [_with(label(one), one.train, one.search) for one in suite.data],
        "models": [label(one) for one in suite.models],
        "methods": [label(one) for one in suite.methods],
        "seeds": suite.seeds,
        "train": suite.train,
        "rates of --search lr": [f"{rate:g}" for rate in suite.rates],
        "of --search weight_decay": [f"{decay:g}" for decay in suite.weight_decays],
        "published": [f"{row.method} on {row.data}: {row.value:g} ({row.source})" for row in suite.published],
        "averages": _averages(entry, [label(one) for one in suite.data]),
        "published averages": [
            f"{row.method}: {', '.join(f'{name} {value:g}' for name, value in row.values.items())} ({row.source})"
            for row in suite.published_averages
        ],
        "command": f"peftx bench {slashed(entry.name)}",
    }


def _averages(entry: Entry[Any], data: list[str]) -> list[str]:
    """What the averages of a suite are called."""
    return list(entry.load("averages")(dict.fromkeys(data, 0.0))) if entry.spec.averages else []


def _with(name: str, settings: dict[str, Any], search: dict[str, Any]) -> str:
    told = [f"{key} {value}" for key, value in settings.items()]
    told += [f"search with {key} {value}" for key, value in search.items()]
    return f"{name} ({', '.join(told)})" if told else name


def _tables(registry: Registry) -> dict[str, dict[str, Entry[Any]]]:
    return {
        "method": dict(registry.methods),
        "task": dict(registry.tasks),
        "data set": dict(registry.datasets),
        "model": dict(registry.models),
        "suite": dict(registry.suites),
    }


def _show(one: dict[str, Any]) -> None:
    click.echo(f"{one['name']} ({one['kind_of_thing']}): {one['summary']}")
    if one["about"]:
        click.echo(f"  {one['about']}")
    rows = []
    for key, value in one.items():
        if key in ("name", "kind_of_thing", "summary", "about", "options"):
            continue
        if isinstance(value, dict):
            rows += [{"": f"{key}.{inner}", "value": item} for inner, item in value.items() if item]
        elif value not in ("", (), [], None):
            rows.append({"": key, "value": value})
    width = max((len(row[""]) for row in rows), default=0)
    for row in rows:
        value = row["value"]
        text = ", ".join(map(str, value)) if isinstance(value, tuple | list) else _word(value)
        lines = value if row[""].startswith("published") else [text]
        if row[""] == "published" and len(value) > MANY:
            lines = [f"{len(value)} scores; --json has them all"]
        for number, line in enumerate(lines):
            click.echo(f"  {'' if number else row['']:<{width}}  {line}")
    if one["options"]:
        print()
        heading("options")
        print_table(table(["flag", "type", "default", "help"], one["options"]))


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)
