"""`peftx bench SUITE`: the grid of a suite, trained, stopped, continued and ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from peftx.cli.app import State, examples
from peftx.errors import ConfigError

if TYPE_CHECKING:
    from peftx.bench.outcome import Outcome
    from peftx.bench.running import Bench
    from peftx.config.options import Option
    from peftx.config.run import Choice

T = TypeVar("T")

EXAMPLES = (
    "peftx bench vision/quick",
    "peftx bench vision/quick --methods core.lora,core.head --seeds 5 --jobs 2",
    "peftx bench vision/quick --search lr --out runs/bench/searched",
    "peftx bench vision/quick --budget params=50k --train.epochs 4 --dry-run",
)
#: Options of a run that a bench passes on.
PASSED_ON = ("device", "precision", "offline", "data_root", "efficiency", "best_on_test")


class _Bench(click.Command):
    """Names its options and, below them, those of a run that it passes on."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from peftx.config.schema import row

        with formatter.section("Options of every run"):
            formatter.write_dl([_line(row(option)) for option in _of_runs()])
        with formatter.section("Training (over the suite's, the same for every row)"):
            formatter.write_dl([_line(row(option, "train")) for option in _of_training()])
        examples(formatter, EXAMPLES)


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    registry = (ctx.find_object(State) or State()).registry()
    names = [name.replace(".", "/", 1) for name in registry.suites]
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command(
    "bench", cls=_Bench, context_settings={"ignore_unknown_options": True, "max_content_width": 110}
)
@click.argument(
    "arguments",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="SUITE [--train.NAME VALUE ...]",
    shell_complete=_complete,
)
@click.option(
    "--methods", multiple=True, metavar="A,B,...", help="Methods, or all that fit (default: the suite's)."
)
@click.option("--data", multiple=True, metavar="A,B,...", help="Data sets (default: the suite's).")
@click.option(
    "--model", "models", multiple=True, metavar="A,B,...", help="Base models (default: the suite's)."
)
@click.option(
    "--seeds", type=click.IntRange(min=1), metavar="N", help="Seeds 0 to N-1 (default: the suite's)."
)
@click.option(
    "--budget", metavar="params=N", help="Choose each method's size so that it trains N parameters."
)
@click.option(
    "--search",
    multiple=True,
    metavar="lr[=A,B,...]",
    help="Search the learning rate, alike for every row; once more for weight_decay.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="Runs at the same time (default: 1; with Ray as many as fit).",
)
@click.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="Threads of a run (default: cores / jobs)."
)
@click.option(
    "--executor", type=click.Choice(["local", "ray"]), default="local", help="Who carries runs out."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder (default: bench/SUITE in PEFTX_RUNS, else in runs).",
)
@click.option("--resume", is_flag=True, help="Try failed runs again; unfinished ones always go on.")
@click.option("--published", is_flag=True, help="Add the rows of papers to the tables, unranked.")
@click.option("--dry-run", is_flag=True, help="Show what would be run, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(state: State, /, arguments: tuple[str, ...], **given: Any) -> None:
    """Run a suite: every method on every data set, with several seeds.

    SUITE is domain/name, or a TOML file of your own. The same command again goes on where it was stopped, and keeps
    what is done. Data sets, models and methods are written as the tables call them, with their options:
    "vision.digits limit_train=100". Exits 1 when a run failed.
    """
    registry = state.registry()

    from peftx.bench.progress import bench_progress
    from peftx.bench.request import Request, parse_budget, parse_search
    from peftx.bench.running import carry_out, prepare, typed
    from peftx.cli.output import print_json

    suite, passed, train = _read_arguments(arguments)
    budget = given["budget"]
    asked = [_read(parse_search, text, "--search") for text in given["search"]]
    search = dict(asked)
    if len(search) < len(asked):
        raise ConfigError(f"--search {asked[-1][0]} stands there twice: give all its values at once")
    request = Request(
        suite=suite,
        methods=_choices(given["methods"], "--methods"),
        data=_choices(given["data"], "--data"),
        models=_choices(given["models"], "--model"),
        seeds=given["seeds"],
        train=train,
        search=search.get("lr"),
        search_decay=search.get("weight_decay"),
        budget=None if budget is None else _read(parse_budget, budget, "--budget"),
        out=given["out"],
        resume=given["resume"],
        jobs=given["jobs"],
        threads=given["threads"],
        executor=given["executor"],
        published=given["published"],
        disabled=state.disabled,
        command=typed([*_again(arguments, given), *(f"--no-plugin={name}" for name in state.disabled)]),
        **passed,
    )
    as_json = given["as_json"]
    with bench_progress(traces=state.debug) as progress:
        bench = prepare(request, registry, progress)
        if given["dry_run"]:
            _show_plan(bench, as_json)
            return
        if request.budget is not None and not as_json:
            _show_sizes(bench)
        outcome = carry_out(bench, progress)
    if as_json:
        print_json(outcome.to_dict())
    else:
        _show(outcome)
    if outcome.failed:
        raise click.exceptions.Exit(1)


# --- what was typed -----------------------------------------------------------------------------------------


def _choices(given: Iterable[str], flag: str) -> tuple[Choice, ...] | None:
    from peftx.config.options import split_outside_brackets
    from peftx.config.suite import parse_label

    texts = [part for text in given for part in split_outside_brackets(text)]
    if not texts:
        if any(True for _ in given):
            raise ConfigError(f"{flag} names nothing: write names, separated by commas")
        return None
    return tuple(parse_label(text) for text in texts)


def _read(parse: Callable[[str], T], text: str, flag: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{flag}: {error}") from None


def _read_arguments(arguments: Sequence[str]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The suite, options of a run, and those of its training, checked under the names they were typed with."""
    from pydantic import ValidationError

    from peftx.config.errors import problems
    from peftx.config.flags import parse, place
    from peftx.config.run import RunConfig, TrainConfig

    flags = parse(arguments, ("offline", "efficiency", "no_efficiency", "best_on_test"))
    if not flags.words:
        raise ConfigError(
            "name a suite, such as `peftx bench vision/quick`; `peftx list` shows those installed"
        )
    if len(flags.words) > 1:
        raise ConfigError(
            f"one suite is expected, got {' '.join(flags.words)}; an option's value follows --NAME"
        )
    own = [name.lstrip("-").replace("-", "_") for option in command.params for name in option.opts]
    values, spelled = place(flags.flags, {"": _of_runs(), "train": _of_training()}, own)
    train = values.pop("train", {})
    wrong: list[str] = []
    checked: dict[str, Any] = {}
    try:
        made = RunConfig.model_validate(values)
        checked = {name: getattr(made, name) for name in values}
    except ValidationError as error:
        wrong += problems(error, spelled=spelled)
    try:
        settings = TrainConfig.model_validate(train)
        train = {name: getattr(settings, name) for name in train}
    except ValidationError as error:
        wrong += problems(error, prefix="train", spelled=spelled)
    if wrong:
        raise ConfigError("\n".join(wrong))
    return flags.words[0], checked, train


def _of_runs() -> list[Option]:
    from peftx.config.options import options_of
    from peftx.config.run import RunConfig

    return [option for option in options_of(RunConfig) if option.path in PASSED_ON]


def _of_training() -> list[Option]:
    from peftx.config.options import options_of
    from peftx.config.run import TrainConfig

    return list(options_of(TrainConfig))


def _line(shown: Any) -> tuple[str, str]:
    return shown.usage, shown.note


def _again(arguments: Sequence[str], given: dict[str, Any]) -> list[str]:
    """The command again, without what belongs to one call of it."""
    words = [*arguments]
    for name in ("methods", "data", "models"):
        words += [
            word
            for value in given[name]
            for word in (f"--{name.removesuffix('s') if name == 'models' else name}", value)
        ]
    words += [word for text in given["search"] for word in ("--search", text)]
    for name in ("seeds", "budget", "jobs", "threads", "out"):
        words += [f"--{name}", str(given[name])] if given[name] is not None else []
    words += ["--executor", given["executor"]] if given["executor"] != "local" else []
    words += ["--published"] if given["published"] else []
    return words


# --- what is shown ------------------------------------------------------------------------------------------


def _show_plan(bench: Bench, as_json: bool) -> None:
    from collections import Counter

    from peftx.bench.outcome import size_of
    from peftx.cli.output import print_json, print_table, table
    from peftx.report.table import Column, count

    states = {name: bench.loop.states[name].word for name in bench.loop.cells}
    rows: list[dict[str, Any]] = []
    for row in bench.rows:
        own = Counter(word for name, word in states.items() if name.startswith(f"{row.folder}/"))
        own["waiting"] += len(row.points) + row.seeds - sum(own.values())  # runs that wait for their search
        rows.append(
            {
                "method": row.label,
                "data": row.data,
                "model": row.model,
                "search": len(row.points) or None,
                "search_data": dict(row.search) if row.points else {},
                "seeds": row.seeds,
                "size": None if bench.request.budget is None else size_of(row),
                "train": row.values["train"],
                "trainable": row.trainable,
                "off": row.off or None,
                "cells": {word: count for word, count in own.items() if count},
            }
        )
    if as_json:
        print_json(
            {
                "suite": bench.grid.suite,
                "about": bench.grid.about,
                "folder": str(bench.out),
                "protocol": bench.grid.protocol,
                "cells": bench.loop.total,
                "rows": rows,
            }
        )
        return
    click.echo(f"{bench.grid.suite}: {bench.grid.about}\n")
    shown = [{**row, "cells": ", ".join(f"{n} {word}" for word, n in row["cells"].items())} for row in rows]
    columns: list[str | Column] = ["method", "data", "model", Column("seeds", "seeds")]
    if bench.request.budget is not None:
        columns += ["size", Column("trainable", "trainable", count), "off"]
    print_table(table([*columns, "cells"], shown))
    click.echo("")
    alike: dict[str, list[str]] = {}
    for row in {row.data: row for row in bench.rows}.values():
        settings = _plain(row.values["train"]) or "the task's recipe for each method"
        searched = f"; its search with {_plain(dict(row.search))}" if row.points and row.search else ""
        alike.setdefault(settings + searched, []).append(row.data)
    for settings, data in alike.items():
        every = len(alike) == 1 and len(data) > 1
        names = [f"all {len(data)} data sets"] if every else data
        for name in names:
            click.echo(f"train on {name}: {settings}")
    for key, value in bench.grid.protocol.items():
        if key != "train" and value not in (None, [], {}):
            click.echo(f"{key}: {_plain(value)}")
    click.echo(f"\n{bench.loop.total} cells, {bench.loop.settled} of them settled; folder {bench.out}")


def _show_sizes(bench: Bench) -> None:
    from peftx.bench.outcome import size_table
    from peftx.cli.output import print_table

    print_table(size_table(tuple(bench.rows)))
    click.echo("")


def _show(outcome: Outcome) -> None:
    from peftx.bench.outcome import search_table
    from peftx.cli.output import print_table
    from peftx.report.board import mean_ranks, rank_table

    click.echo(f"{outcome.suite}: {outcome.about}")
    searched = search_table(outcome)
    if searched is not None:
        click.echo("\nvalidation by learning rate (first seed; * is the rate of the runs below)")
        print_table(searched)
    for board in outcome.boards:
        click.echo(f"\n{board.title}")
        print_table(board.table())
        for text in board.notes:
            click.echo(f"note: {text}")
    ranks = mean_ranks(outcome.boards)
    if ranks:
        click.echo("\nmean rank over the boards")
        print_table(rank_table(ranks, outcome.boards))
    for one in outcome.averages:
        if one.rows:
            click.echo(f"\n{one.title}")
            print_table(one.table())
        for text in one.notes:
            click.echo(f"note: {text}")
    for text in outcome.notes:
        click.echo(f"note: {text}")
    click.echo(f"\nbench folder: {outcome.folder}")
    if outcome.page is not None:
        click.echo(f"report: {outcome.page}")
    click.echo("next:")
    for line in outcome.next:
        click.echo(f"  {line}")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in value)
    return str(value)
