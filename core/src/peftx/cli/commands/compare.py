"""`peftx compare RUN RUN...`: what differs between runs, in their settings, their scores and their costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftx.cli.app import State
from peftx.cli.output import heading, note, print_json, print_table, table
from peftx.report.board import score_text
from peftx.report.table import Column, byte_size, count, seconds

if TYPE_CHECKING:
    from peftx.results.comparing import Comparison, Score
    from peftx.results.statistics import Interval


@click.command("compare")
@click.argument("folders", metavar="RUN RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with the difference of every seed.")
@click.pass_obj
def command(state: State, folders: tuple[Path, ...], as_json: bool) -> None:
    """Compare runs: what differs in their settings and their scores.

    A RUN is a run folder, or a folder with the runs of several seeds. The others are compared with the first one, seed
    by seed: the mean difference, and 95 % intervals of it.

    \b
    Examples:
      peftx compare runs/lora-rank4 runs/lora-rank8
      peftx compare runs/bench/vision.quick/vision.digits/vision.vit_micro/core.{lora,dora}
    """
    from peftx.results.comparing import compare

    found = compare(folders, state.registry())
    if as_json:
        print_json(found)
        return
    for text in found.warnings:
        note(f"warning: {text}")
    _groups(found)
    _settings(found)
    for split in dict.fromkeys(score.split for score in found.scores):
        print()
        heading(f"{split} scores, and differences to {found.groups[0].name} paired by seed")
        # how many samples there were is no score
        print_table(_scores([one for one in found.scores if one.split == split and one.metric != "n"]))
    _costs(found)
    for text in found.notes:
        note(f"note: {text}")


def _groups(found: Comparison) -> None:
    rows = [
        {
            "group": group.name,
            "method": group.method,
            "data": group.data,
            "model": group.model,
            "seeds": [str(seed) for seed in group.seeds],
        }
        for group in found.groups
    ]
    print_table(table(["group", "method", "data", "model", "seeds"], rows))


def _settings(found: Comparison) -> None:
    from peftx.results.labels import show

    print()
    if not found.settings:
        print("settings: the same")
        return
    heading("settings that differ")
    columns: list[str | Column] = ["setting"]
    columns += [Column(str(i), group.name, show, left=True) for i, group in enumerate(found.groups)]
    rows = [
        {"setting": one.key} | {str(index): value for index, value in enumerate(one.values)}
        for one in found.settings
    ]
    print_table(table(columns, rows))


def _scores(scores: Sequence[Score]) -> Any:
    rows = []
    for score in scores:
        show = score_text(score.unit)
        rows.append(
            {
                "metric": f"{score.metric} {score.unit}".strip(),
                "group": score.group,
                "mean": show(score.mean),
                "sd": None if score.sd is None else show(score.sd),
                "n": score.n,
                "difference": None if score.difference is None else _signed(score.difference, score.unit),
                "pairs": len(score.seeds) or None,
                "bootstrap": _interval(score.bootstrap, score.unit),
                "student": _interval(score.student, score.unit),
            }
        )
    columns: list[str | Column] = [
        "metric",
        "group",
        Column("mean", "mean"),
        Column("sd", "sd"),
        Column("n", "n"),
    ]
    columns += [Column("difference", "difference"), Column("pairs", "pairs")]
    columns += [Column("bootstrap", "95 % bootstrap"), Column("student", "95 % Student")]
    return table(columns, rows)


def _costs(found: Comparison) -> None:
    rows = []
    for cost in found.costs:
        title, show = _COSTS[cost.name]
        row: dict[str, Any] = {"cost": title}
        for index, (value, ratio) in enumerate(zip(cost.values, cost.ratios, strict=True)):
            if value is not None:
                row[str(index)] = show(value) + (f" ({ratio:.2f}x)" if index and ratio is not None else "")
        rows.append(row)
    if rows:
        print()
        heading("costs, medians over the seeds")
        columns: list[str | Column] = ["cost"]
        columns += [Column(str(index), group.name) for index, group in enumerate(found.groups)]
        print_table(table(columns, rows))


_COSTS = {
    "trainable": ("trainable parameters", count),
    "stored_bytes": ("stored", byte_size),
    "resident_bytes": ("resident", byte_size),
    "peak_memory_bytes": ("peak memory", byte_size),
    "saved_bytes": ("saved for backward", byte_size),
    "seconds": ("time", seconds),
    "steps": ("steps", count),
}


def _signed(value: float, unit: str) -> str:
    text = score_text(unit)(value)
    return text if text.startswith("-") else f"+{text}"


def _interval(interval: Interval | None, unit: str) -> str | None:
    return None if interval is None else f"{_signed(interval.low, unit)} .. {_signed(interval.high, unit)}"
