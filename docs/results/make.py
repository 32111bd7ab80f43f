"""A finished bench as the table and the picture of a page in this folder.

    python docs/results/make.py BENCH --picture docs/results/vision_micro.svg > table.md

The table has a row for each method: what it trains, and for each data set the mean and the deviation over the seeds of
the test score, with the learning rate the search chose. The picture shows every method's gap to the tuned head on each
data set. Both are read off the records of the runs, nothing is typed in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from html import escape
from pathlib import Path
from typing import Any

HEAD = "core.head"
COLOURS = ("#3b6fb6", "#c8553d", "#3f8f5b", "#8a5fbf", "#b58900", "#2a9d8f")
ROW, LEFT, WIDTH, TOP, RIGHT = 26, 190, 620, 64, 24


def main() -> int:
    """Print the table, and write the picture where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bench", type=Path, help="folder of a finished bench")
    parser.add_argument("--picture", type=Path, help="SVG to write")
    given = parser.parse_args()
    boards = read(given.bench)
    rows = scores(boards)
    print(table(boards, rows))
    if given.picture:
        given.picture.write_text(picture(list(boards), rows), encoding="utf-8")
    return 0


def read(bench: Path) -> dict[str, Any]:
    """The boards of a bench by the label of their data set, as `peftx leaderboard` makes them."""
    command = [sys.executable, "-m", "peftx", "leaderboard", "--root", str(bench), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return {board["data"]: board["standings"] for board in json.loads(done.stdout)["boards"]}


def scores(boards: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Standings by method and data set; the methods in the order of their mean rank."""
    found: dict[str, dict[str, Any]] = {}
    for data, standings in boards.items():
        for one in standings:
            if one["mean"] is not None:
                found.setdefault(one["method"], {})[data] = one
    order = {m: sum(one["rank"] for one in held.values()) / len(held) for m, held in found.items()}
    return {method: found[method] for method in sorted(found, key=lambda m: (order[m], m))}


def short(data: str) -> str:
    """A data set's name without its options."""
    return data.partition(" ")[0].removeprefix("vision.").removeprefix("imagefolder:")


def table(boards: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    """The table in Markdown."""
    lines = ["| method | trained | " + " | ".join(short(data) for data in boards) + " | mean rank |"]
    lines.append("|---" * (len(boards) + 3) + "|")
    for method, held in rows.items():
        cells = []
        for data in boards:
            one = held.get(data)
            if one is None:
                cells.append("-")
                continue
            rates = " / ".join(f"{rate:g}" for rate in one["lr"])
            spread = "" if one["sd"] is None else f" ± {one['sd']:.1f}"
            cells.append(f"{one['mean']:.1f}{spread} ({rates})")
        sizes = {one["trainable"] for one in held.values()}
        size = f"{min(sizes):,}" if len(sizes) == 1 else f"{min(sizes):,} to {max(sizes):,}"
        rank = sum(one["rank"] for one in held.values()) / len(held)
        lines.append(f"| `{method}` | {size} | " + " | ".join(cells) + f" | {rank:.1f} |")
    return "\n".join(lines)


def picture(data: list[str], rows: dict[str, dict[str, Any]]) -> str:
    """A dot for each method and data set: the gap to the tuned head in points, with the deviation over seeds."""
    gaps = {
        (method, name): (held[name]["mean"] - rows[HEAD][name]["mean"], held[name]["sd"] or 0.0)
        for method, held in rows.items()
        for name in data
        if name in held and name in rows[HEAD]
    }
    low = min(gap - sd for gap, sd in gaps.values())
    high = max(gap + sd for gap, sd in gaps.values())
    scale = WIDTH / (high - low)
    height = TOP + ROW * len(rows) + 30

    def at(gap: float) -> float:
        return LEFT + (gap - low) * scale

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}" '
        'font-family="system-ui, sans-serif" font-size="13">',
        f'<rect width="{LEFT + WIDTH + RIGHT}" height="{height}" fill="#ffffff"/>',
        '<text x="12" y="22" font-size="15" fill="#1d2430">Test accuracy beside the tuned head, in points</text>',
    ]
    for number, name in enumerate(data):
        x = 12 + 190 * number
        out.append(f'<circle cx="{x + 5}" cy="42" r="5" fill="{COLOURS[number]}"/>')
        out.append(f'<text x="{x + 16}" y="46" fill="#3a4350">{escape(short(name))}</text>')
    step = next(s for s in (0.5, 1, 2, 5, 10, 20) if (high - low) / s <= 10)
    tick = step * -(-low // step)
    while tick <= high:
        strong = abs(tick) < 1e-9
        out.append(
            f'<line x1="{at(tick):.1f}" x2="{at(tick):.1f}" y1="{TOP}" y2="{height - 24}" '
            f'stroke="{"#59636f" if strong else "#e3e7ec"}"/>'
        )
        out.append(
            f'<text x="{at(tick):.1f}" y="{height - 8}" text-anchor="middle" fill="#59636f">{tick:+g}</text>'
        )
        tick += step
    for index, method in enumerate(rows):
        y = TOP + ROW * (index + 0.5)
        out.append(f'<text x="12" y="{y + 4:.1f}" fill="#1d2430">{escape(method)}</text>')
        for number, name in enumerate(data):
            if (method, name) not in gaps:
                continue
            gap, sd = gaps[method, name]
            level = y + 4.5 * (number - (len(data) - 1) / 2)
            out.append(
                f'<line x1="{at(gap - sd):.1f}" x2="{at(gap + sd):.1f}" y1="{level:.1f}" y2="{level:.1f}" '
                f'stroke="{COLOURS[number]}" stroke-opacity="0.5" stroke-width="2"/>'
                f'<circle cx="{at(gap):.1f}" cy="{level:.1f}" r="3.4" fill="{COLOURS[number]}"/>'
            )
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    sys.exit(main())
