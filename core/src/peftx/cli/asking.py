"""Options of `peftx predict` that the task of the run brings, beside the command's own: read off its schema once the
run is known, so that they are parsed and explained as all others."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftx.cli.app import State

if TYPE_CHECKING:
    from peftx.config.options import Option

__all__ = ["Asking", "asked"]

_KEY = "peftx.cli.asking"


class Asking(click.Command):
    """A command whose first argument is the folder of a run, and which takes the options that its task declares
    (``TaskSpec.predict_config``)."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look for the run among the words before anything is parsed.

        Raises:
            RunError: an option is unknown because there is no such run.
            PluginError: an option of the task is called as one of the command's own.
        """
        words = [word for word in args if not word.startswith("-")]  # the parser uses its list up
        run = _run_of(words)
        ctx.meta[_KEY] = _parameters(ctx, self.params, run) if run is not None else []
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption:
            if run is None and words:
                from peftx.cli.commands.eval import require_run

                require_run(Path(words[0]))
            raise

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and those of the task."""
        return [*super().get_params(ctx), *(parameter for parameter, _ in ctx.meta.get(_KEY, ()))]


def asked(ctx: click.Context) -> dict[str, Any]:
    """The options of the task that were given, by their dotted paths, as text."""
    return ctx.meta.get(f"{_KEY}.given", {})


def _run_of(words: Sequence[str]) -> Path | None:
    """The first word that is the folder of a run."""
    return next((Path(word) for word in words if (Path(word) / "record.json").is_file()), None)


def _parameters(
    ctx: click.Context, own: Sequence[click.Parameter], run: Path
) -> list[tuple[click.Option, Option]]:
    """An option of click for each of the task's; none where the run or its plugin cannot be read, which the command
    itself says better."""
    from peftx.config.options import options_of
    from peftx.errors import PluginError, UserError
    from peftx.runs.asking import schema_of

    try:
        name = json.loads((run / "record.json").read_text(encoding="utf-8"))["task"]
        schema = schema_of(ctx.ensure_object(State).registry().tasks[name])
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return []
    taken = {flag for parameter in own for flag in parameter.opts}
    found = [(_option(option), option) for option in (options_of(schema) if schema is not None else ())]
    for parameter, _ in found:
        for flag in parameter.opts:
            if flag in taken:
                raise PluginError(f"{flag} of the task {name} is an option of `peftx predict` itself")
    return found


def _option(option: Option) -> click.Option:
    from peftx.config.schema import row

    shown = row(option)
    # a word that no option of the command's is called
    variable = "asked_" + option.path.replace(".", "_")

    def keep(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            ctx.meta.setdefault(f"{_KEY}.given", {})[option.path] = "true" if value is True else value

    switch: dict[str, Any] = {"is_flag": True, "default": None} if option.is_bool else {"metavar": shown.type}
    return click.Option([shown.flag, variable], help=shown.note, expose_value=False, callback=keep, **switch)
