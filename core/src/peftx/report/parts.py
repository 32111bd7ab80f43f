"""Parts of a page that several sections use: sortable tables, switches between views, legends, lists of facts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftx.report.figures import DASH, column, exact, finite
from peftx.report.markup import Html, esc, join, tag
from peftx.report.svg import swatch

__all__ = ["Field", "callout", "copyable", "facts", "figure", "legend", "reveal", "section", "table", "views"]


@dataclass(frozen=True, slots=True)
class Field:
    """A column of a table: its title, one value for each row, and what kind of value that is.

    `kind`: text, html, or one of `figures.column` (count, bytes, seconds, percent, gap, ratio, rate, plain). `unit`
    goes into the heading; bytes and seconds find theirs. `hint` explains the column when its heading is pointed at.
    `best`: max or min, and the best of the first `among` values (of all) stands out. `missing` is shown for None.
    """

    title: str
    values: Sequence[Any]
    kind: str = "plain"
    unit: str = ""
    hint: str = ""
    best: str = ""
    among: int | None = None
    missing: str = DASH

    @property
    def numeric(self) -> bool:
        """Whether its values are figures."""
        return self.kind not in ("text", "html")


def table(
    fields: Sequence[Field],
    *,
    rows: Sequence[str] = (),
    groups: Sequence[int] = (),
    sortable: bool = True,
    caption: str = "",
) -> Html:
    """A table of columns. Headings are buttons that sort, by mouse or keyboard.

    `rows`: a class for each row (own, failed, ...). `groups`: how many rows each body has; rows are sorted within a
    body. Figures keep all their digits in ``data-value``.
    """
    count = len(fields[0].values) if fields else 0
    heads, cells = [], []
    for one in fields:
        unit, texts = (
            column(one.values, one.kind)
            if one.numeric
            else ("", ["" if v is None else v for v in one.values])
        )
        heads.append(_head(one, one.unit or unit, sortable))
        cells.append(_cells(one, texts))
    bodies, start = [], 0
    for size in groups or (count,):
        lines = [
            tag(
                "tr", *(column_cells[i] for column_cells in cells), class_=(rows[i] or None) if rows else None
            )
            for i in range(start, start + size)
        ]
        bodies.append(tag("tbody", *lines))
        start += size
    found = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", tag("tr", *heads)),
        *bodies,
        class_="sortable" if sortable else None,
    )
    return tag("div", found, class_="scroll", tabindex="0", role="region", aria_label=caption or "table")


def _head(one: Field, unit: str, sortable: bool) -> Html:
    name = join([one.title, tag("span", f" ({unit})", class_="unit") if unit else None])
    content = tag("button", name, type="button", title=one.hint or None) if sortable else name
    return tag(
        "th",
        content,
        scope="col",
        class_="num" if one.numeric else None,
        aria_sort="none" if sortable else None,
        title=None if sortable else (one.hint or None),
    )


def _cells(one: Field, texts: Sequence[Any]) -> list[Html]:
    if not one.numeric:
        return [tag("td", one.missing if text == "" else text) for text in texts]
    numbers = [finite(value) for value in one.values]
    known = [number for number in numbers[: one.among] if number is not None]
    best = {"max": max, "min": min}[one.best](known) if one.best and len(known) > 1 else None
    cells = []
    for index, (number, text) in enumerate(zip(numbers, texts, strict=True)):
        leads = number is not None and number == best and (one.among is None or index < one.among)
        shown = one.missing if number is None else text
        value = exact(one.values[index])
        hidden = None  # the digits it does not show, when pointed at
        if number is not None and float(_digits(text)) != number:
            hidden = value + {"bytes": " bytes", "seconds": " s"}.get(one.kind, "")
        cells.append(
            tag("td", shown, class_="num best" if leads else "num", data_value=value or None, title=hidden)
        )
    return cells


def _digits(text: str) -> str:
    return text.replace(",", "").replace("−", "-")


def section(key: str, title: str, *body: object, note: str = "") -> Html:
    """A titled part of a page; `key` is its place in links."""
    return tag(
        "section",
        tag("h2", title),
        tag("p", note, class_="note") if note else None,
        *body,
        id=key,
        aria_label=title,
    )


def figure(title: str, body: object, caption: str = "") -> Html:
    """A plot with its title above and a line about it below."""
    return tag(
        "figure",
        tag("h3", title),
        body,
        tag("figcaption", caption) if caption else None,
    )


def views(choices: Sequence[tuple[str, object]], label: str, chosen: int = 0) -> Html:
    """Several forms of one thing with a switch between them; without a script, and in print, the chosen one."""
    if len(choices) == 1:
        return esc(choices[0][1])
    buttons = [
        tag("button", name, type="button", aria_pressed="true" if i == chosen else "false", data_show=i)
        for i, (name, _) in enumerate(choices)
    ]
    bodies = [
        tag("div", body, class_="view", data_view=i, hidden=i != chosen)
        for i, (_, body) in enumerate(choices)
    ]
    return tag(
        "div", tag("div", *buttons, class_="switch", role="group", aria_label=label), *bodies, class_="views"
    )


def legend(names: Sequence[str], *, own: int | None = None, toggles: bool = True) -> Html:
    """Marks and names of series; as switches, each hides its series in the plots of the same group."""
    items = []
    for index, name in enumerate(names):
        content = join([swatch(index), tag("span", name, class_="own" if index == own else None)])
        if toggles:
            items.append(tag("button", content, type="button", aria_pressed="true", data_toggle=index))
        else:
            items.append(tag("span", content, class_="key"))
    return tag("div", *items, class_="legend", role="group", aria_label="series")


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Names and what they are; those without a value are left out."""
    found: list[Html] = []
    for name, value in pairs:
        if value is None or value == "":
            continue
        found.append(tag("div", tag("dt", name), tag("dd", value)))
    return tag("dl", *found, class_="facts")


def copyable(text: str, label: str = "copy") -> Html:
    """A command or a file as text, with a button that copies it."""
    return tag(
        "div",
        tag("pre", tag("code", text), tabindex="0"),
        tag(
            "button",
            label,
            type="button",
            class_="copy",
            aria_label=f"copy: {text.splitlines()[0][:60] if text else ''}",
        ),
        class_="copyable",
    )


def reveal(summary: str, *body: object, open_: bool = False) -> Html:
    """Something long, folded away; print unfolds it."""
    return tag("details", tag("summary", summary), *body, open=open_)


def callout(text: object, kind: str = "info") -> Html:
    """A remark that must not be overlooked. `kind`: info, warn or bad."""
    return tag("div", text, class_=f"callout {kind}", role="note")


def plain(value: Any) -> str:
    """An option's value as text: lists and tables on one line, None as a dash."""
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={plain(item)}" for key, item in value.items()) or DASH
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or DASH
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)
