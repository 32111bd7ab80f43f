"""The tables of a run's page: results beside the baselines, all metrics, costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftx.report.figures import finite
from peftx.report.markup import Html, join, tag
from peftx.report.order import decides, lower_is_better
from peftx.report.parts import Field, table, views
from peftx.report.source import RunSource, mapping
from peftx.report.svg import swatch

__all__ = ["efficiency", "failed", "metrics", "named", "results"]

EFFICIENCY: tuple[tuple[str, str, str, str], ...] = (
    (
        "saved_bytes",
        "kept for backward",
        "bytes",
        "what autograd holds between forward and backward, of one batch",
    ),
    ("saved_batch", "at batch", "count", "samples in that batch"),
    ("optimizer_bytes", "optimizer state", "bytes", "moments and the like of what is trained"),
    (
        "forward_overhead",
        "forward",
        "ratio",
        "time of a forward with the adapter over one of the base alone; 1 is free",
    ),
    ("merged_overhead", "merged forward", "ratio", "the same once the adapter is merged into the weights"),
    ("switch_seconds", "switching", "seconds", "time to make another adapter the active one"),
)


def named(source: RunSource, name: str) -> Html:
    """A method's name with its mark."""
    index = source.names.index(name)
    return tag("span", swatch(index), tag("span", name, class_="own" if index == 0 else None), class_="who")


def results(source: RunSource) -> Html:
    """One line for each row that is done: scores and costs."""
    rows = [row for row in source.rows if "error" not in row]
    parameters = finite(mapping(source.record.get("model")).get("parameters"))
    unit = source.unit(source.primary)
    kind = "percent" if unit == "%" else "plain"
    fields = [
        Field("method", [named(source, str(row["method"])) for row in rows], "html"),
        Field(
            "trainable", [row.get("trainable") for row in rows], "count", hint="parameters that are trained"
        ),
    ]
    if parameters:
        shares = [
            100 * t / parameters if (t := finite(row.get("trainable"))) is not None else None for row in rows
        ]
        fields.append(Field("share", shares, "percent", "%", "trained parameters over all of the model's"))
    fields.append(
        Field(
            "stored", [row.get("stored_bytes") for row in rows], "bytes", hint="size of the adapter's tensors"
        )
    )
    resident = [row.get("resident_bytes") for row in rows]
    if any(finite(value) is not None for value in resident):
        fields.append(
            Field("resident", resident, "bytes", hint="size of all tensors a forward needs: base and adapter")
        )
    for split, long in (("val", "validation"), ("test", "test")):
        metric = source.metric(split)
        values = [source.scores(row, split).get(metric) for row in rows]
        if any(finite(value) is not None for value in values):
            shown = source.unit(metric)
            best = _best(source, metric) if split == source.split else ""
            fields.append(
                Field(f"{long} {metric}", values, "percent" if shown == "%" else "plain", shown, best=best)
            )
    fields += _to_reference(source, rows, unit)
    fields += _beside(source, rows, kind, unit)
    if len(rows) > 1 and source.score(rows[0]) is not None:
        own = source.score(rows[0]) or 0.0
        gaps = [None if i == 0 or (s := source.score(row)) is None else s - own for i, row in enumerate(rows)]
        points = "points" if unit == "%" else unit
        gap = "gap" if unit == "%" else "plain"
        fields.append(
            Field(
                f"to {rows[0]['method']}",
                gaps,
                gap,
                points,
                f"{source.split} {source.primary} minus this run's",
            )
        )
    fields += [
        Field(
            "peak memory", [row.get("peak_memory_bytes") for row in rows], "bytes", hint=_memory_hint(rows)
        ),
        Field("training", [row.get("seconds") for row in rows], "seconds", hint="time of the training loop"),
        Field(
            "kept epoch",
            [_epochs(row) for row in rows],
            "text",
            hint="epoch whose state was kept, of those trained",
        ),
        Field("lr", [mapping(row.get("train")).get("lr") for row in rows], "rate", hint="peak learning rate"),
    ]
    return table(
        fields, rows=["own" if i == 0 else "" for i in range(len(rows))], caption="results by method"
    )


def _to_reference(source: RunSource, rows: list[Mapping[str, Any]], unit: str) -> list[Field]:
    """Each row's gap to the task's reference; none where that is the run's own method, which has a column already."""
    name = source.record.get("reference")
    if not name or rows[0]["method"] == name:
        return []
    other = next((source.score(row) for row in rows if row["method"] == name), None)
    if other is None:
        return []
    gaps = [
        None if row["method"] == name or (own := source.score(row)) is None else own - other for row in rows
    ]
    kind, points = ("gap", "points") if unit == "%" else ("plain", unit)
    hint = f"{source.split} {source.primary} minus that of {name}"
    return [Field(f"to {name}", gaps, kind, points, hint)]


def _beside(source: RunSource, rows: list[Mapping[str, Any]], kind: str, unit: str) -> list[Field]:
    """Test scores of epochs other than the kept one: the last, where another was kept, and the best on test."""
    found = []
    for name, title, hint in (
        ("last_epoch", "of the last epoch", "test score of the last epoch, whichever was kept"),
        (
            "best_on_test",
            "best on test (optimistic)",
            "best test score of any epoch, chosen by the very data it is taken on: comparable only with figures that "
            "were chosen so, too",
        ),
    ):
        held = [mapping(row.get(name)) for row in rows]
        values = [mapping(mapping(one.get("metrics")).get("test")).get(source.primary) for one in held]
        other = name != "last_epoch" or any(row.get("best_epoch") != row.get("epochs") for row in rows)
        if other and any(finite(value) is not None for value in values):
            found.append(Field(title, values, kind, unit, hint))
    return found


def _memory_hint(rows: list[Mapping[str, Any]]) -> str:
    how = {str(row.get("peak_memory_how")) for row in rows if row.get("peak_memory_how")}
    return "; ".join(sorted(how)) or "highest use of memory in training"


def _epochs(row: Mapping[str, Any]) -> str:
    best, epochs = finite(row.get("best_epoch")), finite(row.get("epochs"))
    if epochs is None:
        return ""
    text = f"{best:g} of {epochs:g}" if best is not None else f"{epochs:g}"
    return f"{text}, stopped early" if row.get("stopped_early") else text


def failed(source: RunSource) -> list[tuple[str, str]]:
    """Methods that failed, with their cause."""
    return [(str(row.get("method")), str(row["error"])) for row in source.rows if "error" in row]


def metrics(source: RunSource) -> Html | None:
    """All metrics of all rows, a view for each split."""
    rows = [row for row in source.rows if "error" not in row]
    choices: list[tuple[str, object]] = []
    for split in ("test", "val"):
        names = dict.fromkeys(name for row in rows for name in source.scores(row, split))
        if not names:
            continue
        fields = [Field("method", [named(source, str(row["method"])) for row in rows], "html")]
        for name in names:
            values = [source.scores(row, split).get(name) for row in rows]
            unit = source.unit(name)
            whole = all(isinstance(value, int) for value in values if value is not None)
            kind = "percent" if unit == "%" else "count" if whole else "plain"
            fields.append(Field(name, values, kind, unit, best=_best(source, name)))
        own = ["own" if i == 0 else "" for i in range(len(rows))]
        long = {"test": "test", "val": "validation"}[split]
        choices.append((long, table(fields, rows=own, caption=f"all metrics on the {long} split")))
    return views(choices, "split") if choices else None


def _best(source: RunSource, name: str) -> str:
    for split in ("test", "val"):
        metric, higher = decides(source.record, split)
        if name == metric:
            return "max" if higher else "min"
    return "min" if lower_is_better(name) else ""


def efficiency(source: RunSource) -> Html | None:
    """What a row costs beyond its parameters; None where nothing was measured."""
    rows = [row for row in source.rows if mapping(row.get("efficiency"))]
    fields = [Field("method", [named(source, str(row["method"])) for row in rows], "html")]
    for key, title, kind, hint in EFFICIENCY:
        values = [mapping(row["efficiency"]).get(key) for row in rows]
        if any(finite(value) is not None for value in values):
            fields.append(Field(title, values, kind, hint=hint))
    if len(fields) == 1:
        return None
    shown = [title for _, title, _, _ in EFFICIENCY if any(field.title == title for field in fields)]
    hints = [
        tag("div", tag("dt", title), tag("dd", hint)) for _, title, _, hint in EFFICIENCY if title in shown
    ]
    own = ["own" if row.get("method") == source.names[0] else "" for row in rows]
    return join(
        [table(fields, rows=own, caption="efficiency by method"), tag("dl", *hints, class_="glossary")]
    )
