"""The command group: commands are modules imported when used, so that `--help` pays for none of them.

run, eval, predict              one run, from configuration to prediction
bench, leaderboard              many runs, and how methods stand
results, compare, report        what runs came to
list, info, explain             what there is, and what a method would do
merge, export, import           trained models and adapters, out and in
plugins, data, check, doctor    whether it is sound
new                             a plugin of your own
completion                      for the shell
DOMAIN.NAME                     a plugin's own command
"""

from __future__ import annotations

import importlib
import keyword
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from peftx import __version__
from peftx.errors import PeftxError, near_matches

if TYPE_CHECKING:
    from peftx.plugins.registry import Registry

__all__ = ["State", "cli"]

# Name -> one-line help; kept here so that `peftx --help` imports no command. A test compares them with the
# commands.
COMMANDS = {
    "run": "Train a method on a task, score it beside its baselines, keep a record.",
    "eval": "Score a finished run again and compare with its record.",
    "predict": "Predict on new files with a finished run.",
    "bench": "Run a suite: every method on every data set, with several seeds.",
    "leaderboard": "Rank methods over the runs there are.",
    "results": "List the runs there are, or choose among them.",
    "compare": "Compare runs: what differs in their settings and their scores.",
    "report": "Write the page of a run or of a bench again.",
    "merge": "Merge a run's adapter into its model, and measure what that changed.",
    "export": "Write a run's model or adapter for other libraries.",
    "import": "Read an adapter that HF PEFT wrote.",
    "list": "List methods, tasks, data sets, models and packs.",
    "info": "Show the card of a method, task, data set or model.",
    "explain": "Show what a method would change in a model, before training.",
    "plugins": "List installed plugins and whether they loaded.",
    "data": "List data sets, or check one against its published figures.",
    "check": "Judge methods, data sets, tasks, models and plugins by their laws.",
    "new": "Write a new plugin, or one more method into it.",
    "doctor": "Check this installation: libraries, plugins, folders.",
    "completion": "Print the completion script of a shell.",
}


@dataclass(slots=True)
class State:
    """What the global options say; commands reach it by ``@click.pass_obj``."""

    disabled: tuple[str, ...] = ()
    debug: bool = False

    def registry(self) -> Registry:
        """The registry without the plugins switched off. Raises PluginError when `--no-plugin` names none."""
        from peftx.errors import PluginError
        from peftx.plugins.manager import get_registry

        registry = get_registry(self.disabled)
        names = [name for info in registry.plugins for name in (info.domain, info.distribution)]
        for name in self.disabled:
            if name != "all" and name.replace("_", "-").lower() not in {
                n.replace("_", "-").lower() for n in names
            }:
                raise PluginError(
                    f"--no-plugin {name}: no such plugin is installed.{near_matches(name, names)}"
                )
        return registry


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *_plugin_commands(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            module = f"{name}_" if keyword.iskeyword(name) else name
            return importlib.import_module(f"peftx.cli.commands.{module}").command
        if "." in name:
            registry = _state(ctx).registry()
            if name in registry.commands:
                return registry.commands[name].load()
            registry.refuse_unloaded(name)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name.startswith("-"):
            return super().resolve_command(ctx, args)
        command = self.get_command(ctx, name)
        if command is None:
            hint = near_matches(name, self.list_commands(ctx)) or " See `peftx --help`."
            raise click.UsageError(f"no command is called {name!r}.{hint}")
        return name, command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
        extra = _plugin_commands(ctx)
        if extra:
            with formatter.section("Commands of plugins"):
                formatter.write_dl(list(extra.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        examples(formatter, EXAMPLES)


EXAMPLES = (
    "peftx list",
    "peftx run vision.snella --data digits",
    "peftx run vision --method core.dora --rank 16 --help",
    "peftx explain core.lora --model vit_micro",
)


def examples(formatter: click.HelpFormatter, commands: tuple[str, ...]) -> None:
    """Write real commands at the end of a help page."""
    formatter.write("\nExamples:\n" + "".join(f"  {command}\n" for command in commands))


def _state(ctx: click.Context) -> State:
    found = ctx.find_object(State)
    return found if found is not None else State()


def _plugin_commands(ctx: click.Context) -> dict[str, str]:
    try:
        registry = _state(ctx).registry()
    except PeftxError:  # the help must come up whatever the plugins say
        return {}
    return {entry.name: entry.spec.summary for entry in registry.commands.values()}


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,
)
@click.option(
    "--no-plugin", "disabled", multiple=True, metavar="NAME", help="Do not load a plugin (domain or package)."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(__version__, "--version", prog_name="peftx", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, disabled: tuple[str, ...], debug: bool) -> None:
    """Parameter-efficient fine-tuning whose methods, tasks and data sets are plugins."""
    ctx.obj = State(disabled, debug)
