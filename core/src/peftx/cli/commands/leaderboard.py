"""`peftx leaderboard`: how methods stand over the runs there are, on each data set and model, and over all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftx.cli.app import State
from peftx.cli.commands.results import open_index, tell
from peftx.cli.output import heading, note, print_csv, print_json, print_table
from peftx.errors import UnknownNameError, near_matches
from peftx.report.board import Board, MeanRank, Standing, mean_ranks, rank_table

if TYPE_CHECKING:
    from peftx.config.suite import Suite
    from peftx.plugins.registry import Registry
    from peftx.results.index import Index


@click.command("leaderboard")
@click.argument("domain", required=False)
@click.option(
    "--root", type=click.Path(path_type=Path), help="Folder of runs (default: PEFTX_RUNS, else runs)."
)
@click.option("--data", metavar="NAME", help="Only boards of this data set.")
@click.option("--model", metavar="NAME", help="Only boards of this model.")
@click.option("--metric", metavar="NAME", help="Rank by this metric (default: each task's primary one).")
@click.option(
    "--higher-is-better/--lower-is-better",
    "higher",
    default=None,
    help="Direction of --metric (default: what its name says: losses and errors are better when lower).",
)
@click.option(
    "--pareto",
    type=click.Choice(["trainable", "stored", "memory", "saved", "seconds"]),
    default="trainable",
    show_default=True,
    help="Mark the rows that no other beats in both the score and this cost.",
)
@click.option(
    "--published", is_flag=True, help="Add rows that papers printed, where a suite has them; never ranked."
)
@click.option("--by-rank", is_flag=True, help="Only the mean ranks over the boards.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    state: State,
    domain: str | None,
    root: Path | None,
    data: str | None,
    model: str | None,
    metric: str | None,
    higher: bool | None,
    pareto: str,
    published: bool,
    by_rank: bool,
    as_csv: bool,
    as_json: bool,
) -> None:
    """Rank methods over the runs there are.

    A board is one data set and model; a row is one method with one set of options and training settings, over its
    seeds. With several boards comes a table of mean ranks, over the methods that stand on all of them. DOMAIN keeps
    the tasks of one domain.

    \b
    Examples:
      peftx leaderboard
      peftx leaderboard vision --data digits --pareto memory
      peftx leaderboard --metric loss --json
    """
    if as_csv and as_json:
        raise click.UsageError("--csv and --json: choose one")
    if higher is not None and metric is None:
        raise click.UsageError("--higher-is-better and --lower-is-better are about --metric: name one")
    from peftx.results.boards import boards

    registry = state.registry()
    index, _ = open_index(root, ())
    with index:
        suites = _suites(registry) if published else []
        found = boards(
            index,
            suites=suites,
            registry=registry,
            metric=metric,
            higher_is_better=higher,
            pareto=pareto,
        )
        if metric is not None and not found:
            _refuse_metric(metric, index.keys())
    found = _of("domain", domain, found, lambda board: {board.task.partition(".")[0]})
    found = _of("data set", data, found, lambda board: _names(board.data))
    found = _of("model", model, found, lambda board: _names(board.model))
    ranked = mean_ranks(found)
    if as_json:
        print_json({"boards": found, "mean_ranks": ranked, "skipped": index.skipped, "notes": index.notes})
        return
    if as_csv and by_rank:
        print_csv(["label", "rank"], [dataclasses.asdict(one) for one in ranked])
    elif as_csv:
        print_csv(list(_CSV), [_flat(board, standing) for board in found for standing in board.standings])
    else:
        _show(found, ranked, index, by_rank=by_rank)
    tell(index)


def _show(found: Sequence[Board], ranked: Sequence[MeanRank], index: Index, *, by_rank: bool) -> None:
    if not found:
        note(f"there is no finished run in {index.root} yet")
    if by_rank and found and not ranked:
        note("mean ranks need two boards with a method in common: here are the boards themselves")
    for number, board in enumerate(found if not (by_rank and ranked) else ()):
        if number:
            print()
        _print(board)
    if ranked:
        if not by_rank:
            print()
        heading(f"mean rank over {len(found)} boards, among the {len(ranked)} rows that stand on all of them")
        print_table(rank_table(ranked, found))


def _print(board: Board) -> None:
    heading(board.title)
    print_table(board.table())
    for text in board.notes:
        print(f"note: {text}")
    for standing in board.standings:
        if standing.failed:
            runs = "1 run" if standing.failed == 1 else f"{standing.failed} runs"
            print(f"failed: {standing.label}, {runs}: {standing.cause}")


def _suites(registry: Registry) -> list[Suite]:
    """Every suite that can be loaded; one that cannot is no reason to show nothing."""
    found = []
    for entry in registry.suites.values():
        try:
            found.append(entry.load())
        except Exception as error:
            from peftx.plugins.targets import one_line

            note(f"note: the suite {entry.name} cannot be read: {one_line(error)}")
    return found


def _of(what: str, name: str | None, found: Sequence[Board], names: Any) -> list[Board]:
    """Boards that go by a name; without a name all of them."""
    if name is None or not found:
        return list(found)
    kept = [board for board in found if name in names(board)]
    if not kept:
        known = sorted({one for board in found for one in names(board)}, key=lambda one: (len(one), one))
        full = sorted({max(names(board), key=len) for board in found})
        raise UnknownNameError(
            f"no run here is of a {what} called {name!r}.{near_matches(name, known)} There are: {', '.join(full)}."
        )
    return kept


def _names(label: str) -> set[str]:
    """What a data set or model may be called: its label, its full name, and the name alone."""
    full = label.partition(" ")[0]
    return {label, full, full.partition(".")[2] or full, label.partition(".")[2] or label}


def _refuse_metric(metric: str, keys: Iterable[str]) -> None:
    known = sorted({key.partition(".")[2] for key in keys if key.startswith(("val.", "test."))})
    if known:
        raise UnknownNameError(
            f"no run here has a metric called {metric!r}.{near_matches(metric, known)} There are: {', '.join(known)}."
        )


_CSV = (
    "task data model split metric unit rank method label n mean sd gap pareto trainable stored_bytes resident_bytes "
    "peak_memory_bytes saved_bytes seconds lr failed cause published"
).split()


def _flat(board: Board, standing: Standing) -> dict[str, Any]:
    values = {field.name: getattr(standing, field.name) for field in dataclasses.fields(standing)}
    about = {
        "task": board.task,
        "data": board.data,
        "model": board.model,
        "split": board.split,
        "metric": board.primary,
        "unit": board.unit,
        "n": standing.n,
        "gap": board.gap(standing),
        "pareto": "yes" if standing.pareto else "no",
        "lr": " ".join(f"{rate:g}" for rate in standing.lr),
    }
    return {name: (values | about)[name] for name in _CSV}
