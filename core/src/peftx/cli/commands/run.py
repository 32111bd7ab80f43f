"""`peftx run`: resolve names, check every option, find the data, and only then import torch and train."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from peftx.cli.app import State
from peftx.cli.choosing import targets

if TYPE_CHECKING:
    from peftx.plugins.registry import Registry

#: Flags of the command itself; the rest comes from the schemas.
OWN = (
    ("--task NAME", "task of the domain (default: its first)"),
    ("--method NAME", "method to train (default: the task's)"),
    ("--data NAME", "data set (default: the task's)"),
    ("--model NAME", "base model (default: the task's)"),
    ("--resume RUN", "go on with a run that did not finish, with the settings it began with"),
    ("--config FILE", "TOML file of the same shape as a run's config.toml; flags win over it"),
    ("--dry-run", "print the resolved configuration and stop; torch is not imported"),
    ("--json", "print the result as JSON"),
    ("--help", "show the options of what was chosen"),
)
EXAMPLES = (
    "peftx run vision --data digits",
    "peftx run vision --method core.dora --rank 16 --train.lr 3e-3 --baselines none",
    "peftx run vision --config run.toml --seed 1 --out runs/again",
    "peftx run --resume runs/again",
    "peftx run vision --method core.lora --help",
)


class _Run(click.Command):
    """Click hands the arguments over untouched: which options exist depends on the names among them."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_help(formatter, _registry(ctx), [])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete flags; click sends everything else to the argument."""
        from peftx.cli.helping import flag_names

        return _items(flag_names(_registry(ctx), list(ctx.params.get("arguments") or ())), incomplete)


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names after ``--method`` and its like, and targets."""
    return _items(_names(_registry(ctx), list(ctx.params.get("arguments") or ())), incomplete)


@click.command(
    "run",
    cls=_Run,
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument(
    "arguments", nargs=-1, type=click.UNPROCESSED, metavar="TARGET [OPTIONS]", shell_complete=_complete
)
@click.pass_obj
def command(state: State, arguments: tuple[str, ...]) -> None:
    """Train a method on a task, score it beside its baselines, and keep a record.

    TARGET is a domain (vision), a task (vision.classification), or a method (core.lora, or lora when unique).
    """
    registry = state.registry()
    if not arguments or not {"--help", "-h"}.isdisjoint(arguments):
        formatter = click.Context(command, max_content_width=110).make_formatter()
        write_help(formatter, registry, [word for word in arguments if word not in ("--help", "-h")])
        click.echo(formatter.getvalue().rstrip("\n"))
        return

    from peftx.cli.assembling import assemble
    from peftx.cli.output import note, print_json

    folder, arguments = resumed(arguments)
    request = assemble(registry, arguments)
    dry, as_json = request.flags.switch("dry_run"), request.flags.switch("json")
    config = request.config()
    for text in request.notes:
        note(text)
    if dry:
        from peftx.config.toml import dumps
        from peftx.runs import preflight

        resolved = preflight(config, registry, locate=False).resolved(config.train)
        if as_json:
            print_json(resolved)
        else:
            click.echo(dumps(resolved), nl=False)
        return

    from peftx.cli.progress import make_progress
    from peftx.runs import execute

    with make_progress() as progress:
        result = execute(config, registry, progress, resume=folder is not None)
    if is_main_process():
        from peftx.results import register

        register(Path(result.folder))
        report(result, as_json)


def resumed(arguments: tuple[str, ...]) -> tuple[Path | None, tuple[str, ...]]:
    """Turn ``--resume RUN`` into the run's own configuration and folder, which the other flags must not contradict."""
    from peftx.cli.assembling import SWITCHES
    from peftx.config.flags import parse
    from peftx.errors import ConfigError

    flags = parse(arguments, SWITCHES)
    folder = flags.text("resume")
    if folder is None:
        return None, arguments
    if flags.pop("config") or flags.pop("out"):
        raise ConfigError("--resume RUN brings its own --config and --out; leave those out")
    from peftx.cli.commands.eval import require_run

    path = Path(folder).expanduser()
    require_run(path)
    kept = list(arguments)
    for index, word in enumerate(kept):
        if word == "--resume":
            kept[index : index + 2] = []
            break
        if word.startswith("--resume="):
            kept[index : index + 1] = []
            break
    return path, (*kept, "--config", str(path / "config.toml"), "--out", str(path))


def is_main_process() -> bool:
    """Whether this is the process that prints, among those a launcher started together."""
    return os.environ.get("RANK", "0") == "0"


def report(result: Any, as_json: bool) -> None:
    """Print a finished run: the table, what must be known about it, where it is, and what to type next."""
    from peftx.cli.output import print_json, print_table

    if as_json:
        print_json({"folder": str(result.folder), **result.record})
        return
    print_table(result.table)
    for text in result.notes:
        click.echo(f"note: {text}")
    click.echo(f"\nrun folder: {result.folder}")
    click.echo("next:")
    for line in result.next_commands:
        click.echo(f"  {line}")


def write_help(formatter: click.HelpFormatter, registry: Registry, arguments: Sequence[str]) -> None:
    """Write the help of a run with these arguments; without any, what can be chosen."""
    formatter.write_usage("peftx run", "TARGET [OPTIONS]")
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(
            "Train a method on a task, score it beside its baselines, keep a record. TARGET is a domain (vision),"
            " a task, or a method."
        )
    with formatter.section("Options"):
        formatter.write_dl(list(OWN))
    from peftx.cli.helping import write_options

    write_options(formatter, registry, arguments)
    formatter.write("\nExamples:\n" + "".join(f"  {line}\n" for line in EXAMPLES))


def _names(registry: Registry, before: Sequence[str]) -> list[str]:
    last = before[-1] if before else ""
    tables = {
        "--method": registry.methods,
        "--task": registry.tasks,
        "--data": registry.datasets,
        "--model": registry.models,
        "--baselines": registry.methods,
    }
    if last in tables:
        return [*tables[last], *(name.partition(".")[2] for name in tables[last])]
    if last.startswith("--"):
        return []
    return targets(registry) if not any(not word.startswith("-") for word in before) else []


def _items(names: Sequence[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _registry(ctx: click.Context) -> Registry:
    found = ctx.find_object(State)
    return (found if found is not None else State()).registry()


__all__ = ["EXAMPLES", "OWN", "command", "is_main_process", "report", "resumed", "write_help"]
