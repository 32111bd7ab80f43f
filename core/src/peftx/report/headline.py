"""What a run came to, in a line: the score, beside the baselines, with what may be concluded from it and what not."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from peftx.report.figures import amount, exact, finite, score
from peftx.report.markup import Html, join, tag
from peftx.report.parts import callout
from peftx.report.reliability import wilson
from peftx.report.source import RunSource, mapping, sequence
from peftx.report.strips import Strip, strips

__all__ = ["banner", "header", "summary", "tile"]


def header(source: RunSource) -> Html:
    """Method, data, model, and the figures one looks for first."""
    record = source.record
    model = mapping(record.get("model"))
    environment = mapping(record.get("environment"))
    parameters = finite(model.get("parameters"))
    size = f" ({parameters:,.0f} parameters)" if parameters else ""
    where = [
        f"{model.get('name', 'unknown model')}{size}",
        f"seed {record.get('seed', '?')}",
        str(record.get("precision", "")),
        " ".join(str(environment.get(key, "")) for key in ("device", "device_name")).strip(),
        str(record.get("started", ""))[:10],
    ]
    return join(
        [
            tag("p", f"peftx run · {record.get('task', '')}", class_="eyebrow"),
            tag(
                "h1",
                record.get("method", "run"),
                tag("span", " on ", class_="soft"),
                mapping(record.get("data")).get("name", "unknown data"),
            ),
            tag("p", " · ".join(part for part in where if part), class_="sub"),
            _tiles(source),
        ]
    )


def _tiles(source: RunSource) -> Html | None:
    row = _own(source)
    if row is None:
        return None
    unit, split = source.unit(source.primary), {"test": "test", "val": "validation"}[source.split]
    model = finite(mapping(source.record.get("model")).get("parameters"))
    trained = finite(row.get("trainable"))
    share = f"{100 * trained / model:.2f} % of the model" if model and trained is not None else ""
    value = source.score(row)
    samples = finite(mapping(mapping(source.record.get("data")).get("sizes")).get(source.split))
    counted = str(mapping(source.record.get("data")).get("unit") or "samples")
    tiles = [
        tile(
            f"{split} {source.primary}",
            score(value, unit),
            unit,
            f"{samples:,.0f} {counted}" if samples else "",
            value,
            True,
        ),
        tile("trained parameters", amount(trained, "count"), "", share, trained),
        tile("stored", *_split(amount(row.get("stored_bytes"), "bytes")), "", row.get("stored_bytes")),
        tile(
            "peak memory",
            *_split(amount(row.get("peak_memory_bytes"), "bytes")),
            "",
            row.get("peak_memory_bytes"),
        ),
        tile("training", *_split(amount(row.get("seconds"), "seconds")), _steps(row), row.get("seconds")),
    ]
    return tag("div", *tiles, class_="tiles")


def tile(
    name: str, value: str, unit: str = "", below: str = "", raw: Any = None, large: bool = False
) -> Html:
    """A figure with its name above and a remark below."""
    return tag(
        "div",
        tag("div", name, class_="tile-name"),
        tag(
            "div",
            value,
            tag("small", f" {unit}") if unit else None,
            class_="tile-value",
            data_value=exact(raw) or None,
        ),
        tag("div", below, class_="tile-below"),
        class_="tile large" if large else "tile",
    )


def banner(source: RunSource) -> Html | None:
    """What is wrong with the run as a whole; None for one that is complete."""
    status, record = source.status, source.record
    if status == "complete":
        return None
    resume = tag("code", f"peftx run --resume {shlex.quote(source.folder.as_posix())}")
    done = sum("error" not in row for row in source.rows)
    planned = len(sequence(record.get("plan")))
    progress = (
        f" {done} of {planned} rows are done; what is shown is what there is so far." if planned else ""
    )
    if status == "failed":
        cause = record.get("error", "no cause was recorded")
        return callout(join([tag("strong", "This run failed: "), tag("span", cause), progress]), "bad")
    if status == "interrupted":
        return callout(
            join([tag("strong", "This run was interrupted."), progress, " Go on with ", resume, "."]), "warn"
        )
    return callout(
        join(
            [
                tag("strong", "This run was not finished when the page was written."),
                progress,
                " If nothing is at work on it any more, go on with ",
                resume,
                ".",
            ]
        ),
        "warn",
    )


def summary(source: RunSource) -> Html:
    """The scores on one line each, and sentences that read them."""
    unit = source.unit(source.primary)
    rows = []
    for index, name in enumerate(source.names):
        row = next((row for row in source.rows if row.get("method") == name), None)
        if row is None:
            continue
        value = source.score(row)
        seed = f"seed {source.record.get('seed', '?')}"
        rows.append(
            Strip(
                name,
                [(seed, value)] if value is not None else [],
                value,
                score(value, unit) if "error" not in row else "failed",
                index,
                index == 0,
                str(row.get("error", "")),
            )
        )
    split = {"test": "test", "val": "validation"}[source.split]
    sentences = reading(source)
    return join(
        [
            strips(rows, metric=f"{split} {source.primary}", unit=unit) if rows else None,
            tag("p", " ".join(sentences), class_="reading") if sentences else None,
        ]
    )


def reading(source: RunSource) -> list[str]:
    """Sentences: how the method stands to the rows around it, and how far a single seed carries."""
    own = _own(source)
    value = source.score(own) if own is not None else None
    if own is None or value is None:
        return []
    unit, found = source.unit(source.primary), []
    sign = 1.0 if source.higher_is_better else -1.0
    others = [row for row in source.rows if row is not own and source.score(row) is not None]
    if others:
        best = max(others, key=lambda row: sign * (source.score(row) or 0.0))
        gap = sign * (value - (source.score(best) or 0.0))
        size = f"{abs(gap):.2f} points" if unit == "%" else f"{abs(gap):.4g}{f' {unit}' if unit else ''}"
        verb = "ahead of" if gap > 0 else "behind"
        stands = f"{size} {verb}" if gap else "level with"
        found.append(
            f"{own['method']} is {stands} {best['method']}, the best of the other rows{_relation(own, best)}."
        )
    found += _precision(source, value, unit)
    found.append(
        "One seed is no spread: differences of this size need several seeds (peftx bench, peftx compare)."
    )
    if source.split == "val":
        found.append("Scores are on validation data, which also chose the epoch.")
    return found


def _relation(own: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    a, b = finite(own.get("trainable")), finite(other.get("trainable"))
    if not a or not b or a == b:
        return ""
    return (
        f", and trains {b / a:.3g} times fewer parameters"
        if b > a
        else f", and trains {a / b:.3g} times as many parameters"
    )


def _precision(source: RunSource, value: float, unit: str) -> list[str]:
    """What the size of the split leaves open, for shares of samples that are right."""
    samples = finite(mapping(mapping(source.record.get("data")).get("sizes")).get(source.split))
    details = mapping(mapping(source.details.get(source.names[0])).get(source.split))
    samples = finite(details.get("n")) or samples
    if source.primary != "accuracy" or unit != "%" or not samples:
        return []
    low, high = wilson(value / 100 * samples, samples)
    return [
        f"One of {samples:,.0f} samples is {100 / samples:.2g} points, and the size of the split alone leaves "
        f"{100 * low:.1f} to {100 * high:.1f} % open (95 % Wilson interval)."
    ]


def _own(source: RunSource) -> Mapping[str, Any] | None:
    name = source.names[0] if source.names else ""
    return next((row for row in source.rows if row.get("method") == name and "error" not in row), None)


def _split(text: str) -> tuple[str, str]:
    value, _, unit = text.partition(" ")
    return value, unit


def _steps(row: Mapping[str, Any]) -> str:
    steps, epochs = finite(row.get("steps")), finite(row.get("epochs"))
    if steps is None or epochs is None:
        return ""
    return f"{steps:,.0f} steps, {epochs:,.0f} epochs"
