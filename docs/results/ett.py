"""Finished benches of timeseries/ett as the tables and the picture of ett.md.

    python docs/results/ett.py BENCH [BENCH ...] --picture docs/results/ett.svg > tables.md

One table for each data set: a row for each method and host, a column for each horizon, with the mean and the deviation
over the seeds of the test MSE, and the gap to the closed form. A last table has the sizes, and the MAE. All of it is
read off the records of the runs, nothing is typed in.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from statistics import mean, stdev

CLOSED = "least_squares"
COLOURS = ("#3b6fb6", "#c8553d")
ROW, LEFT, WIDTH, TOP, RIGHT = 24, 300, 560, 70, 24
#: Rows that are further from the closed form than this are drawn at the edge, and their gap is written there.
EDGE = 0.25


@dataclass
class Cell:
    """One row on one data set and horizon: scores by seed, sizes of any."""

    mse: list[float] = field(default_factory=list)
    mae: list[float] = field(default_factory=list)
    lr: float | None = None
    trainable: int = 0
    stored: int = 0
    resident: int = 0


#: row -> (set, horizon) -> cell
Rows = dict[str, dict[tuple[str, int], Cell]]


def main() -> int:
    """Print the tables, and write the picture where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("benches", type=Path, nargs="+", help="folders of finished benches")
    parser.add_argument("--picture", type=Path, help="SVG to write")
    given = parser.parse_args()
    rows = read(given.benches)
    sets = sorted({name for held in rows.values() for name, _ in held})
    for name in sets:
        print(f"### {name}\n\n{table(name, rows)}\n")
    print(f"### Sizes and mean absolute errors\n\n{sizes(sets, rows)}")
    if given.picture:
        given.picture.write_text(picture(sets, rows), encoding="utf-8")
    return 0


def read(benches: list[Path]) -> Rows:
    """Every run of the benches but those of a search; the rows in the order of their mean MSE."""
    rows: Rows = {}
    for bench in benches:
        for cell in json.loads((bench / "bench.json").read_text(encoding="utf-8"))["cells"]:
            if cell.get("search"):
                continue
            record = json.loads((bench / cell["folder"] / "record.json").read_text(encoding="utf-8"))
            row = record["rows"][0]
            data, _, horizon = cell["data"].partition(" task.horizon=")
            place = data.removeprefix("timeseries."), int(horizon)
            held = rows.setdefault(called(cell["label"], cell["model"]), {}).setdefault(place, Cell())
            held.mse.append(row["metrics"]["test"]["mse"])
            held.mae.append(row["metrics"]["test"]["mae"])
            held.lr = row["train"]["lr"] if row["steps"] else None
            held.trainable, held.stored = row["trainable"], row["stored_bytes"]
            held.resident = row["resident_bytes"]
    return dict(sorted(rows.items(), key=lambda item: mean(mean(cell.mse) for cell in item[1].values())))


def called(label: str, model: str) -> str:
    """A method with its options, and its host where it is not the pretrained one as it stands."""
    options = dict(part.split("=", 1) for part in model.split(" ")[1:])
    own = [
        text
        for key, text in (("pretrained", "random host"), ("residual", ""), ("share", ""))
        if key in options and (text or key != "share")
    ]
    own = [text or {"linear": "correcting", "average": "averaged"}[options["residual"]] for text in own]
    name = label.removeprefix("timeseries.")
    return f"{name} ({', '.join(own)})" if own else name


def horizons(name: str, rows: Rows) -> list[int]:
    """The horizons there are on a data set."""
    return sorted({horizon for held in rows.values() for one, horizon in held if one == name})


def gap(rows: Rows, row: str, place: tuple[str, int]) -> float | None:
    """The mean MSE minus the closed form's."""
    if row == CLOSED or place not in rows[row] or place not in rows.get(CLOSED, {}):
        return None
    return mean(rows[row][place].mse) - mean(rows[CLOSED][place].mse)


def table(name: str, rows: Rows) -> str:
    """MSE and gap at each horizon, in Markdown."""
    found = horizons(name, rows)
    lines = ["| row | " + " | ".join(map(str, found)) + " |", "|---" * (len(found) + 1) + "|"]
    for row, held in rows.items():
        cells = []
        for horizon in found:
            cell = held.get((name, horizon))
            if cell is None:
                cells.append("-")
                continue
            spread = f" ± {stdev(cell.mse):.4f}" if len(set(cell.mse)) > 1 else ""
            other = gap(rows, row, (name, horizon))
            cells.append(f"{mean(cell.mse):.4f}{spread}" + ("" if other is None else f" ({other:+.4f})"))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def sizes(sets: list[str], rows: Rows) -> str:
    """Parameters and bytes at the shortest horizon, the rate, and the mean MAE over the horizons of each set."""
    lines = [
        "| row | trained | adapter bytes | resident bytes | rate | "
        + " | ".join(f"mean MAE, {name}" for name in sets)
        + " |",
        "|---" * (5 + len(sets)) + "|",
    ]
    for row, held in rows.items():
        cell = held[min(held)]
        rates = sorted({one.lr for one in held.values() if one.lr is not None})
        errors = []
        for name in sets:
            own = [mean(one.mae) for (set_, _), one in held.items() if set_ == name]
            errors.append(f"{mean(own):.4f}" if len(own) == len(horizons(name, rows)) else "-")
        rate = ", ".join(f"{value:g}" for value in rates) or "-"
        lines.append(
            f"| {row} | {cell.trainable:,} | {cell.stored:,} | {cell.resident:,} | {rate} | {' | '.join(errors)} |"
        )
    return "\n".join(lines)


def picture(sets: list[str], rows: Rows) -> str:
    """A dot for each row, data set and horizon: the gap to the closed form in MSE, small horizons small."""
    others = [row for row in rows if row != CLOSED]
    gaps: list[tuple[int, int, int, float]] = []
    for index, row in enumerate(others):
        for number, name in enumerate(sets):
            for size, horizon in enumerate(horizons(name, rows)):
                one = gap(rows, row, (name, horizon))
                if one is not None:
                    gaps.append((index, number, size, one))
    low = min(-0.02, min(one for *_, one in gaps))
    scale = WIDTH / (EDGE - low)
    height = TOP + ROW * len(others) + 34

    def at(value: float) -> float:
        return LEFT + (min(value, EDGE) - low) * scale

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{LEFT + WIDTH + RIGHT}" height="{height}" fill="#ffffff"/>',
        '<text x="12" y="22" font-size="15" fill="#1d2430">Test MSE beside the closed-form linear forecast</text>',
    ]
    for number, name in enumerate(sets):
        x = 12 + 110 * number
        out.append(f'<circle cx="{x + 5}" cy="44" r="5" fill="{COLOURS[number]}"/>')
        out.append(f'<text x="{x + 16}" y="48" fill="#3a4350">{escape(name)}</text>')
    out.append(
        f'<text x="{12 + 110 * len(sets)}" y="48" fill="#59636f">larger dots: longer horizons; at the edge: '
        f"more than {EDGE:g}</text>"
    )
    for tick in (0.0, 0.05, 0.1, 0.15, 0.2, EDGE):
        out.append(
            f'<line x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="{TOP}" y2="{height - 26}" '
            f'stroke="{"#59636f" if tick == 0 else "#e3e7ec"}"/>'
            f'<text x="{at(tick):.1f}" y="{height - 10}" text-anchor="middle" fill="#59636f">{tick:+g}</text>'
        )
    for index, row in enumerate(others):
        out.append(
            f'<text x="12" y="{TOP + ROW * (index + 0.5) + 4:.1f}" fill="#1d2430">{escape(row)}</text>'
        )
    for index, number, size, one in gaps:
        level = TOP + ROW * (index + 0.5) + 5 * (2 * number - len(sets) + 1)
        out.append(
            f'<circle cx="{at(one):.1f}" cy="{level:.1f}" r="{2.5 + 0.8 * size:.1f}" fill="{COLOURS[number]}" '
            f'fill-opacity="{0.35 if one > EDGE else 0.8}"/>'
        )
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    sys.exit(main())
