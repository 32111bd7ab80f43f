"""The page of a bench: how the methods stand, board by board, and how that was found out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from peftx.plugins.registry import Registry
from peftx.report import facts
from peftx.report.bench_board import board_names, board_section
from peftx.report.board import Board, Standing, mean_ranks
from peftx.report.figures import DASH, finite, spread
from peftx.report.headline import tile
from peftx.report.markup import Html, join, tag
from peftx.report.page import page
from peftx.report.panel import plugin_panels
from peftx.report.parts import Field, callout, copyable, plain, reveal, section, table
from peftx.report.parts import facts as listed
from peftx.report.source import BenchSource, mapping, sequence
from peftx.report.svg import swatch

__all__ = ["render_bench"]

#: What bench.json calls a cell that is done; a diverged one is a result of the search.
SETTLED = ("done", "diverged")


def render_bench(source: BenchSource, registry: Registry | None = None) -> str:
    """The whole page as text: the same for the same bench, without a time of its own."""
    bench = source.bench
    sections: list[tuple[str, str, Html]] = []

    def add(key: str, menu: str, title: str, *body: object, note: str = "") -> None:
        if any(part is not None and part != "" for part in body):
            sections.append((key, menu, section(key, title, *body, note=note)))

    averages = ("averages", "Averages", "Averages over the data sets")
    made = any(one.rows for one in source.averages)
    if made:  # what the suite is known for comes first
        add(*averages, *_averages(source))
    add("overview", "Overview", "Overview", *_overview(source), _ranks(source))
    if not made:
        add(*averages, *_averages(source))
    for number, (name, board) in enumerate(zip(board_names(source.boards), source.boards, strict=True)):
        sections.append((f"board-{number}", name, board_section(source, board, f"board-{number}", name)))
    for number, panel in enumerate(plugin_panels(registry, "bench", source)):
        add(f"panel-{number}", panel.title, panel.title, Html(panel.body_html), note=panel.note)
    add("search", "Search", "Search for learning rates", *_search(source))
    add("protocol", "Protocol", "Protocol", *_protocol(source))
    add("cells", "Cells", "Cells", *_cells(source))
    if source.records:
        add(
            "provenance",
            "Provenance",
            "Where it comes from",
            *_differences(source),
            facts.provenance([source.records[name] for name in sorted(source.records)]),
        )
    add("next", "Next", "Next commands", facts.commands(sequence(bench.get("next"))))
    title = str(bench.get("suite") or source.folder.name)
    return page(
        f"{title} · peftx bench",
        _header(source, title),
        sections,
        "A bench of peftx. Every figure is from the records of the runs in this folder.",
    )


def _header(source: BenchSource, title: str) -> Html:
    states = Counter(_state(cell) for cell in source.cells)
    seeds = sorted({seed for board in source.boards for s in board.standings for seed in s.seeds})
    runs, done = sum(states.values()), states["done"]
    others = ", ".join(f"{states[state]} {state}" for state in ("failed", "open") if states[state])
    tiles = [
        *_lead(source),
        tile("boards", str(len(source.boards)), "", "one for each data set and model", len(source.boards)),
        tile("rows", str(len(source.labels)), "", "methods with their settings", len(source.labels)),
        tile(
            "seeds",
            str(len(seeds)),
            "",
            ", ".join(map(str, seeds[:8])) + (", …" if len(seeds) > 8 else ""),
            len(seeds),
        ),
    ]
    if runs:
        tiles.append(tile("finished runs", f"{done}", f"of {runs}", others or "all of them", done))
    return join(
        [
            tag("p", f"peftx bench · {source.bench.get('task') or _tasks(source)}", class_="eyebrow"),
            tag("h1", title),
            tag("p", str(source.bench.get("about") or ""), class_="sub"),
            tag("div", *tiles, class_="tiles"),
        ]
    )


def _lead(source: BenchSource) -> list[Html]:
    """The figure to see first: the best of the suite's averages, the best mean of the only board, or the best mean rank
    over several."""
    averaged = next((one for one in source.averages if one.rows), None)
    if averaged is not None and not averaged.rows[0].published:
        row, name = averaged.rows[0], averaged.names[0]
        text = row.text(name, averaged.unit) or DASH
        return [tile(f"best {name}", text, averaged.unit, row.label, row.mean.get(name), True)]
    found = mean_ranks(source.boards)
    if found:
        return [tile("best mean rank", f"{found[0].rank:.2f}", "", found[0].label, found[0].rank, True)]
    best = next((s for board in source.boards[:1] for s in _ranked(board)), None)
    if best is None:
        return []
    board = source.boards[0]
    return [tile(f"best mean {board.primary}", _told(best, board), board.unit, best.label, best.mean, True)]


def _ranked(board: Board) -> list[Standing]:
    found = (s for s in board.standings if s.rank is not None and s.mean is not None)
    return sorted(found, key=lambda s: s.rank or 0)


def _told(s: Standing, board: Board) -> str:
    return spread(s.mean, s.sd, board.unit)


def _tasks(source: BenchSource) -> str:
    return ", ".join(dict.fromkeys(board.task for board in source.boards))


def _overview(source: BenchSource) -> list[object]:
    states = Counter(_state(cell) for cell in source.cells)
    found: list[object] = []
    if states["open"]:
        found.append(
            callout(
                f"{states['open']} of {sum(states.values())} runs are not done: this is what there is so far.",
                "warn",
            )
        )
    found += facts.notes(sequence(source.bench.get("notes")))
    if not source.boards:
        found.append(callout("No run has a score yet.", "warn"))
        return found
    found.append(
        tag(
            "ul",
            *(
                tag("li", _leader(name, board))
                for name, board in zip(board_names(source.boards), source.boards, strict=True)
            ),
            class_="leaders",
        )
    )
    return found


def _leader(name: str, board: Board) -> Html:
    """One sentence: who leads on a board, by how much, and whether the spread allows to say so."""
    ranked, unit = _ranked(board), f" {board.unit}" if board.unit else ""
    if not ranked:
        return join([tag("strong", name), ": no row has a score yet."])
    best = ranked[0]
    text = f": {best.label} leads with {_told(best, board)}{unit} (n = {best.n})"
    if len(ranked) > 1:
        second = ranked[1]
        text += f", {second.label} follows with {_told(second, board)}{unit}"
        gap = abs((best.mean or 0.0) - (second.mean or 0.0))
        if best.sd is None or second.sd is None:
            text += "; one seed is no spread"
        elif gap <= max(best.sd, second.sd):
            text += "; the gap is within one standard deviation of their seeds"
    return join([tag("strong", name), f"{text}."])


def _ranks(source: BenchSource) -> Html | None:
    """Mean ranks over the boards; None where there is one board, or no method on all of them."""
    found = mean_ranks(source.boards)
    if not found:
        return None
    fields = [
        Field("method", [_named(source, one.label) for one in found], "html"),
        Field(
            "mean rank",
            [one.rank for one in found],
            "percent",
            hint="mean of the ranks on all boards; 1 is best",
        ),
    ]
    for index, name in enumerate(board_names(source.boards)):
        fields.append(Field(name, [one.ranks[index] for one in found], "count"))
    note = f"Ranks among the methods that have a score on all {len(source.boards)} boards."
    return join(
        [tag("h3", "Mean rank"), tag("p", note, class_="note"), table(fields, caption="mean rank by method")]
    )


def _averages(source: BenchSource) -> list[object]:
    """The suite's averages with their spread over seeds, and which rows have none."""
    found: list[object] = []
    for one in source.averages:
        if one.rows:
            own = sum(not row.published for row in one.rows)
            fields = [
                Field(
                    "method",
                    [row.label if row.published else _named(source, row.label) for row in one.rows],
                    "html",
                ),
                Field("n", [len(row.seeds) or None for row in one.rows], "count", hint="seeds"),
                *(
                    Field(name, [row.text(name, one.unit) or DASH for row in one.rows], "text")
                    for name in one.names
                ),
                Field("source", [row.published for row in one.rows], "text", missing=""),
            ]
            shown = fields if own < len(one.rows) else fields[:-1]
            found.append(tag("p", f"{one.title[0].upper()}{one.title[1:]}.", class_="note"))
            found.append(
                table(
                    shown,
                    rows=["published" if row.published else "" for row in one.rows],
                    groups=[own, len(one.rows) - own] if own < len(one.rows) else (),
                    sortable=False,
                    caption=f"averages with {one.model}",
                )
            )
        found += [callout(note) for note in one.notes]
    return found


def _named(source: BenchSource, label: str) -> Html:
    mark = swatch(source.labels.index(label)) if label in source.labels else tag("span", class_="swatch")
    return tag("span", mark, tag("span", label), class_="who")


def _protocol(source: BenchSource) -> list[object]:
    options = mapping(source.bench.get("options"))
    found: list[object] = []
    if source.bench.get("about"):
        found.append(tag("p", str(source.bench["about"]), class_="prose"))
    if options:
        found.append(listed((str(key), tag("code", plain(value))) for key, value in options.items()))
    command = source.bench.get("command")
    if command:
        found.append(copyable(str(command)))
    return found


def _state(cell: Mapping[str, Any]) -> str:
    """done, failed or open."""
    state = cell.get("state")
    return "done" if state in SETTLED else "failed" if state == "failed" else "open"


def _cells(source: BenchSource) -> list[object]:
    cells = source.cells
    if not cells:
        return []
    failed = [cell for cell in cells if _state(cell) == "failed"]
    found: list[object] = []
    if failed:
        found.append(tag("p", f"{len(failed)} of {len(cells)} runs failed:", class_="note"))
        found.append(_cell_table(failed))
    found.append(reveal(f"All {len(cells)} runs", _cell_table(cells)))
    return found


def _cell_table(cells: Sequence[Mapping[str, Any]]) -> Html:
    """The columns there is anything in: what a cell is, its state, its score or its cause."""
    keys = {"label": "text", "data": "text", "model": "text", "seed": "count", "lr": "rate", "search": "text"}
    keys |= {"state": "text", "value": "plain", "seconds": "seconds", "cause": "text", "folder": "text"}
    fields = []
    for key, kind in keys.items():
        values = [cell.get(key) for cell in cells]
        if kind == "text":
            values = ["" if value in (None, "", False) else plain(value) for value in values]
        if any(value not in (None, "") for value in values):
            fields.append(Field({"label": "method", "value": "score"}.get(key, key), values, kind))
    return table(
        fields,
        rows=["bad" if _state(cell) == "failed" else "" for cell in cells],
        caption="runs of the bench",
    )


def _search(source: BenchSource) -> list[object]:
    """Validation score by rate for every row that was searched, a line for each weight decay; the one that was chosen
    stands out."""
    lines: list[tuple[Mapping[str, Any], float | None]] = []
    found: list[dict[float, Mapping[str, Any]]] = []
    for row in map(mapping, sequence(source.bench.get("rows"))):
        tried = [mapping(one) for one in sequence(row.get("search"))]
        for decay in dict.fromkeys(finite(one.get("weight_decay")) for one in tried):
            held = {
                rate: one
                for one in tried
                if finite(one.get("weight_decay")) == decay and (rate := finite(one.get("rate"))) is not None
            }
            lines.append((row, decay))
            found.append(held)
    if not lines:
        return []
    rows = [row for row, _ in lines]
    fields = [Field("method", [_named(source, str(row.get("label", ""))) for row in rows], "html")]
    for key in ("data", "model"):
        if len({str(row.get(key)) for row in rows}) > 1:
            fields.append(Field(key, [str(row.get(key, "")) for row in rows], "text"))
    if any(decay is not None for _, decay in lines):
        fields.append(Field("weight_decay", [decay for _, decay in lines], "rate"))
    for rate in sorted({rate for held in found for rate in held}):
        cells = [
            _searched(
                held.get(rate),
                (rate, decay) == (finite(row.get("lr")), finite(row.get("weight_decay"))),
            )
            for held, (row, decay) in zip(found, lines, strict=True)
        ]
        fields.append(Field(f"lr={rate:g}", cells, "html"))
    note = (
        "Every row tried the same rates with the first seed; a mark is on the one its validation score chose."
    )
    return [
        tag("p", note, class_="note"),
        table(fields, sortable=False, caption="validation score by learning rate"),
    ]


def _searched(one: Mapping[str, Any] | None, chosen: bool) -> Html:
    if one is None:
        return tag("span", DASH)
    value, cause = finite(one.get("value")), str(one.get("cause") or "")
    text = f"{value:.5g}" if value is not None else str(one.get("state", DASH))
    return tag("strong" if chosen else "span", f"{text} ●" if chosen else text, title=cause or None)


def _differences(source: BenchSource) -> list[object]:
    """What is not the same in all records (machines, versions): it makes a comparison of costs doubtful."""
    seen: dict[str, set[str]] = {}
    for record in source.records.values():
        for part in ("versions", "environment"):
            for key, value in mapping(record.get(part)).items():
                seen.setdefault(str(key), set()).add(plain(value))
        git = mapping(record.get("git"))
        seen.setdefault("commit", set()).add(str(git.get("commit", ""))[:12])
    mixed = [
        f"{key} ({', '.join(sorted(values))})" for key, values in sorted(seen.items()) if len(values) > 1
    ]
    note = f"Of {len(source.records)} runs; machine and code are those of the first."
    found: list[object] = [tag("p", note, class_="note")]
    if mixed:
        found.append(
            callout(
                f"The runs differ in {'; '.join(mixed)}: scores, times and memory may not compare.", "warn"
            )
        )
    return found
