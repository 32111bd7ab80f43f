"""One board of a bench: the ranking, single seeds, and quality against what it costs."""

from __future__ import annotations

from collections.abc import Sequence

from peftx.report.board import Board, Standing
from peftx.report.figures import DASH, score, spread
from peftx.report.markup import Html, join, tag
from peftx.report.parts import Field, callout, figure, legend, section, table
from peftx.report.scatter import Point, scatter
from peftx.report.source import BenchSource
from peftx.report.strips import Strip, strips
from peftx.report.svg import swatch

__all__ = ["board_names", "board_section"]


def board_names(boards: Sequence[Board]) -> list[str]:
    """What tells the boards apart, as briefly as it can be said: the data, and the model where there are several."""
    several = len({board.model for board in boards}) > 1
    return [f"{board.data} / {board.model}" if several else board.data for board in boards]


def board_section(source: BenchSource, board: Board, key: str, name: str) -> Html:
    """The whole part of the page about one board."""
    split = {"test": "test", "val": "validation"}.get(board.split, board.split)
    rest = f"{board.model} · {split} {board.primary}{f' ({board.unit})' if board.unit else ''}"
    ranked = sorted(
        (s for s in board.standings if not s.published),
        key=lambda s: (s.rank is None, s.rank or 0, s.label),
    )
    published = [s for s in board.standings if s.published]
    notes: list[object] = [callout(note) for note in board.notes]
    failed = [s for s in ranked if s.failed]
    notes += [
        callout(
            join(
                [
                    tag("strong", s.label),
                    f": {s.failed} failed run{'s' if s.failed > 1 else ''}: ",
                    s.cause or "no cause",
                ]
            ),
            "bad",
        )
        for s in failed
    ]
    plots = _plots(source, board, ranked)
    return section(
        key,
        name,
        _table(source, board, ranked, published),
        *notes,
        tag("h3", "Every seed"),
        _strips(source, board, ranked, published),
        tag("h3", "Quality against cost") if plots else None,
        tag(
            "div",
            legend(source.labels, toggles=len(source.labels) > 1),
            tag("div", *plots, class_="plots"),
            class_="series-group",
        )
        if plots
        else None,
        note=rest,
    )


def _table(
    source: BenchSource, board: Board, ranked: Sequence[Standing], published: Sequence[Standing]
) -> Html:
    rows = [*ranked, *published]
    kind = "percent" if board.unit == "%" else "plain"
    best = "max" if board.higher_is_better else "min"
    marks = ["●" if s.pareto else "" for s in rows]
    names = [_name(source, s) for s in rows]
    fields = [
        Field("method", names, "html"),
        Field("rank", [s.rank for s in rows], "count", hint="by mean; equal means share one"),
        Field(
            f"mean {board.primary}", [s.mean for s in rows], kind, board.unit, best=best, among=len(ranked)
        ),
        Field(
            "sd",
            [s.sd for s in rows],
            kind,
            board.unit,
            hint="sample standard deviation over seeds; a dash for one seed",
        ),
        Field("n", [s.n or None for s in rows], "count", hint="seeds"),
        *_gaps(board, rows),
        *_looks(board, rows, kind),
        Field("trainable", [s.trainable for s in rows], "count", hint="trained parameters"),
        Field("stored", [s.stored_bytes for s in rows], "bytes", hint="size of the adapter's tensors"),
        Field(
            "resident",
            [s.resident_bytes for s in rows],
            "bytes",
            hint="size of all tensors a forward needs: base and adapter",
        ),
        Field(
            "peak memory",
            [s.peak_memory_bytes for s in rows],
            "bytes",
            hint="highest use of memory in training",
        ),
        Field(
            "kept",
            [s.saved_bytes for s in rows],
            "bytes",
            hint="what autograd keeps of a batch for its backward pass",
        ),
        Field("training", [s.seconds for s in rows], "seconds", hint="median time of the training loop"),
        Field("lr", [_rates(s) for s in rows], "text", hint="peak learning rate"),
        Field("front", marks, "text", hint="● no other row is as good and as small", missing=""),
        Field(
            "failed",
            [s.failed or None for s in rows],
            "count",
            hint="runs that ended with an error",
            missing="",
        ),
        Field("source", [s.published for s in rows], "text", hint="where the figure was printed", missing=""),
    ]
    filled = [f for f in fields if any(v not in (None, "", DASH) for v in f.values)]
    classes = ["published" if s.published else "best-row" if s.rank == 1 else "" for s in rows]
    found = table(
        filled,
        rows=classes,
        groups=[len(ranked), len(published)] if published else (),
        caption=f"standings on {board.data} with {board.model}",
    )
    if not published:
        return found
    text = (
        "Figures of papers stand apart and have no rank: they were trained on other networks or other data."
    )
    return join([found, tag("p", text, class_="note")])


def _gaps(board: Board, rows: Sequence[Standing]) -> list[Field]:
    """Each row's gap to the task's reference, where there is one."""
    points = "points" if board.unit == "%" else board.unit
    return [
        Field(
            f"to {board.reference}",
            [board.gap(s) for s in rows],
            "gap" if board.unit == "%" else "plain",
            points,
            f"mean {board.split} {board.primary} minus that of the task's reference",
        )
    ]


def _looks(board: Board, rows: Sequence[Standing], kind: str) -> list[Field]:
    """Test scores that no rank is by, where there are any."""
    last = [None if s.last_epoch == s.mean else s.last_epoch for s in rows]
    best = [s.best_on_test for s in rows]
    found = [
        Field(
            "of the last epoch",
            last,
            kind,
            board.unit,
            "mean test score of the last epoch, where another was kept",
        ),
        Field(
            "best on test (optimistic)",
            best,
            kind,
            board.unit,
            "mean of the best epoch's score, chosen by the very data it is taken on: comparable only with figures that "
            "were chosen so, too",
        ),
    ]
    return [field for field in found if any(value is not None for value in field.values)]


def _name(source: BenchSource, s: Standing) -> Html:
    if s.published:
        return tag("span", tag("span", class_="swatch"), tag("span", s.label), class_="who")
    return tag(
        "span", swatch(source.labels.index(s.label)), tag("span", s.label, title=s.method), class_="who"
    )


def _rates(s: Standing) -> str:
    return ", ".join(f"{rate:g}" for rate in s.lr)


def _strips(
    source: BenchSource, board: Board, ranked: Sequence[Standing], published: Sequence[Standing]
) -> Html:
    rows = []
    for s in ranked:
        values = [(f"seed {seed}", value) for seed, value in zip(s.seeds, s.values, strict=False)]
        text = spread(s.mean, s.sd, board.unit) if s.mean is not None else "failed" if s.failed else DASH
        rows.append(Strip(s.label, values, s.mean, text, source.labels.index(s.label), s.rank == 1, s.cause))
    for s in published:
        values = [("published", s.mean)] if s.mean is not None else []
        rows.append(Strip(s.label, values, s.mean, score(s.mean, board.unit), None, False, s.published))
    return strips(
        rows, metric=board.primary, unit=board.unit, label=f"{board.primary} of every seed on {board.data}"
    )


def _plots(source: BenchSource, board: Board, ranked: Sequence[Standing]) -> list[Html]:
    found = []
    for attribute, kind, title, cost in (
        ("trainable", "count", "Trained parameters", "trained parameters"),
        ("peak_memory_bytes", "bytes", "Peak memory", "peak memory"),
        ("seconds", "seconds", "Training time", "training time"),
    ):
        points = [
            Point(source.labels.index(s.label), s.label, float(value), s.mean, s.sd, s.n)
            for s in ranked
            if (value := getattr(s, attribute)) is not None and s.mean is not None
        ]
        drawn = scatter(
            points,
            f"{board.primary} against {cost} on {board.data}",
            kind=kind,
            cost=cost,
            quality=board.primary,
            unit=board.unit,
            higher_is_better=board.higher_is_better,
        )
        if drawn is not None:
            found.append(
                figure(
                    title,
                    drawn,
                    "Mean and standard deviation over seeds; the dashed line is the Pareto front.",
                )
            )
    return found
