"""`peftx check NAME...`: judge what a plugin brings by the laws of the conformance kit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from peftx.cli.app import State
from peftx.errors import ConfigError, UnknownNameError


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    registry = (ctx.find_object(State) or State()).registry()
    names = [*registry.domains, *registry.methods, *registry.tasks, *registry.datasets, *registry.models]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command("check")
@click.argument("names", metavar="NAME...", nargs=-1, shell_complete=_complete)
@click.option("--all", "everything", is_flag=True, help="Check every installed plugin and all it declares.")
@click.option(
    "--fast", is_flag=True, help="A few models in which every kind of site occurs; slow laws on one of them."
)
@click.option("--law", "laws", multiple=True, metavar="LAW", help="Only this law; may be given again.")
@click.option("--case", "cases", multiple=True, metavar="CASE", help="Only this model; may be given again.")
@click.option(
    "--set", "given", multiple=True, metavar="OPTION=VALUE", help="An option of the thing, such as rank=4."
)
@click.option("--data-root", type=click.Path(path_type=Path), help="Folder that already holds the data.")
@click.option("--list", "listing", is_flag=True, help="List the laws and the models, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    state: State,
    names: tuple[str, ...],
    everything: bool,
    fast: bool,
    laws: tuple[str, ...],
    cases: tuple[str, ...],
    given: tuple[str, ...],
    data_root: Path | None,
    listing: bool,
    as_json: bool,
) -> None:
    """Judge methods, data sets, tasks, models or plugins by the laws every one of them keeps.

    NAME is a method (core.lora), a data set, a task, a model, or a plugin's domain, which stands for all it declares.
    The network is never used. Exits 1 when a law fails, or when a known failure has gone.

    \b
    Examples:
      peftx check core.lora --fast
      peftx check vision.digits vision.vit_micro
      peftx check mine --law gradients --case linear
    """
    registry = state.registry()
    if listing:
        _list(as_json)
        return
    if everything:
        names = (*names, *(info.domain for info in registry.plugins if info.status != "blocked"))
    if not names:
        raise ConfigError("name what to check, such as `peftx check core.lora`, or give --all")
    from peftx.cli.setting import parse_settings

    options = parse_settings(given)
    _resolve(registry, names)

    from peftx.cli.output import note, print_json, print_table
    from peftx.data.contract import DataContext
    from peftx.testing.cases import case_named
    from peftx.testing.checking import check, refuse_unknown_laws
    from peftx.testing.report import Report

    refuse_unknown_laws(laws)
    for case in cases:
        case_named(case)
    context = DataContext.create(data_root, offline=True)
    report = Report(())
    progress = _Progress()
    for name in dict.fromkeys(names):
        report += check(
            name,
            options=options,
            laws=laws,
            cases=cases,
            fast=fast,
            context=context,
            progress=progress,
            registry=registry,
        )
    progress.close()
    if not report.outcomes:
        raise UnknownNameError(f"no law called {', '.join(laws)} is one for {', '.join(names)}")
    if as_json:
        print_json(report.to_dict())
    else:
        print_table(report.table())
        for sentence in ["", *report.sentences()] if report.sentences() else []:
            click.echo(sentence)
        click.echo(f"\n{report.verdict}")
    if state.debug:
        for outcome in report.of("failed"):
            note(f"\n{outcome.name}: {outcome.place}\n{outcome.trace}")
    if report.failed:
        raise click.exceptions.Exit(1)


def _resolve(registry: Any, names: tuple[str, ...]) -> None:
    """Refuse a name that leads nowhere before torch is imported."""
    from peftx.cli.commands.info import find

    domains = {info.domain for info in registry.plugins}
    for name in names:
        if name not in domains:
            find(registry, name)


def _list(as_json: bool) -> None:
    from peftx.cli.output import heading, print_json, print_table, table
    from peftx.testing.cases import CASES, FAST
    from peftx.testing.lawbook import KINDS, laws_of

    laws = [
        {"of": kind, "law": law.name, "runs": law.cost, "demands": law.demands}
        for kind in KINDS
        for law in laws_of(kind)
    ]
    cases = [
        {"case": case.name, "fast": case.name in FAST, "kinds": list(case.kinds), "missing": case.missing()}
        for case in CASES
    ]
    if as_json:
        print_json({"laws": laws, "cases": cases})
        return
    heading("laws")
    print_table(table(["of", "law", "runs", "demands"], laws))
    print()
    heading("cases")
    print_table(table(["case", "fast", "kinds", "missing"], cases))


class _Progress:
    """One line that is written over on a terminal; elsewhere one line for each thing."""

    def __init__(self) -> None:
        self._thing, self._width, self._live = "", 0, sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._live:
            sys.stderr.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            thing = text.partition(": ")[0]
            if thing != self._thing:
                self._thing = thing
                sys.stderr.write(f"checking {thing}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Wipe the line."""
        if self._live and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
