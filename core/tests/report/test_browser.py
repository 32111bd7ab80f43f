"""The pages in a real browser: they load from a file without a complaint, and what can be pressed does what it says.

A page is put, byte for byte, into a frame of a harness page, as wide as a desk's or a phone's screen; the harness
presses its buttons and writes what it saw into the dumped document. Needs Chromium or Chrome; PEFTX_BROWSER may name
one.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from peftx.report import palette, write_bench, write_run

NAMED = os.environ.get("PEFTX_BROWSER")
NAMES = [NAMED] if NAMED else ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000",
    "--window-size=1400,1000",
]

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no browser: install Chromium, or name one with PEFTX_BROWSER"
)

#: Runs in the harness, on the frame's window `w` and document `d`; whatever it puts into `seen` comes back.
EXERCISE = """
const press = (button) => { button.focus(); button.click(); return d.activeElement === button; };
const point = (target, x, y) => target.dispatchEvent(
  new w.PointerEvent("pointermove", { bubbles: true, clientX: x, clientY: y }));
const shown = (element) => element.getClientRects().length > 0;
seen.width = w.innerWidth;
seen.overflow = d.documentElement.scrollWidth - d.documentElement.clientWidth;
seen.paper = w.getComputedStyle(d.body).backgroundColor;

const head = [...d.querySelectorAll("table.sortable thead th")].find((th) => th.textContent.startsWith("trainable"));
const table = head.closest("table");
const column = () => [...table.tBodies[0].rows].map((row) => row.cells[head.cellIndex].dataset.value ?? null);
const before = column();
seen.focused = press(head.querySelector("button"));
seen.sorted = [before, column(), head.getAttribute("aria-sort")];
press(head.querySelector("button"));
seen.reversed = [column(), head.getAttribute("aria-sort")];
press(table.tHead.rows[0].cells[0].querySelector("button"));
seen.names = [[...table.tBodies[0].rows].map((row) => row.cells[0].textContent), head.getAttribute("aria-sort")];

const views = d.querySelector("figure .views");
if (views) {
  const state = () => [[...views.querySelectorAll(".view")].map(shown),
                       [...views.querySelectorAll(".switch button")].map((b) => b.getAttribute("aria-pressed"))];
  seen.views = [state()];
  press(views.querySelector(".switch button"));
  seen.views.push(state());
}
const key = d.querySelector(".legend button");
const part = () => key.closest(".series-group").querySelector('svg.plot [data-series="0"]');
seen.series = [part().getBoundingClientRect().width > 0];
press(key);
seen.series.push(w.getComputedStyle(part()).display !== "none", key.getAttribute("aria-pressed"));
press(key);
seen.series.push(w.getComputedStyle(part()).display !== "none", key.getAttribute("aria-pressed"));

const tip = d.getElementById("tip");
const mark = d.querySelector("svg.strip path[data-tip]") ?? d.querySelector("[data-tip]");
mark.scrollIntoView({ block: "center" });
let box = mark.getBoundingClientRect();
point(mark, box.x + 1, box.y + 1);
const place = tip.getBoundingClientRect();
seen.tip = [tip.hidden, tip.textContent, place.left >= 0 && place.right <= w.innerWidth];
const curves = d.querySelector("svg.cross");
if (curves) {
  box = curves.getBoundingClientRect();
  point(curves, box.x + box.width / 2, box.y + box.height / 2);
  seen.cross = [tip.hidden, tip.textContent, curves.querySelectorAll(".pointer").length];
}
point(d.body, 0, 0);
seen.gone = [tip.hidden, d.querySelectorAll(".pointer").length];
seen.titles = d.querySelectorAll("svg title").length;
seen.labelled = [...d.querySelectorAll("svg[role=img]")].every((svg) => svg.getAttribute("aria-label"));

const folded = [...d.querySelectorAll("details")];
w.dispatchEvent(new w.Event("beforeprint"));
seen.print = [folded.length, folded.every((one) => one.open)];
w.dispatchEvent(new w.Event("afterprint"));
seen.print.push(folded.some((one) => one.open));

const theme = d.getElementById("theme");
seen.themes = [];
for (let turn = 0; turn < 3; turn++) {
  press(theme);
  seen.themes.push([theme.textContent, w.getComputedStyle(d.body).backgroundColor]);
}
seen.copies = d.querySelectorAll(".copyable button").length;
const pressed = d.querySelector(".copyable button");
press(pressed);
"""

HARNESS = """<!doctype html><meta charset="utf-8"><title>harness</title>
<iframe id="page" style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe>
<pre id="seen"></pre>
<script>
const frame = document.getElementById("page"), seen = {{}};
frame.addEventListener("load", () => {{
  const w = frame.contentWindow, d = w.document;
  try {{ {exercise} }} catch (error) {{ seen.error = String(error.stack); }}
  document.getElementById("seen").textContent = JSON.stringify(seen);
}});
</script>
"""


def browse(page: Path, profile: Path, *more: str) -> tuple[str, list[str]]:
    """The document as the browser leaves it, and what its console said."""
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *FLAGS, *more, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "<html" in done.stdout, done.stderr[-2000:]
    return done.stdout, re.findall(r'CONSOLE.*?\] "(.*)"', done.stderr)


@pytest.fixture
def exercise(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Press the buttons of a page in a frame of some width; returns what was seen."""

    def run(page: Path, width: int, *more: str) -> dict[str, Any]:
        harness = tmp_path / f"harness{width}.html"
        text = HARNESS.format(
            width=width, page=html.escape(page.read_text("utf-8"), quote=True), exercise=EXERCISE
        )
        harness.write_text(text, encoding="utf-8")
        dom, console = browse(harness, tmp_path / f"profile{width}", *more)
        assert console == []
        seen = json.loads(unescape(re.search(r'<pre id="seen">(.*?)</pre>', dom, re.S)[1]))
        assert "error" not in seen, seen["error"]
        return seen

    return run


def colour(value: str) -> str:
    """As a browser states a colour."""
    return f"rgb({', '.join(str(int(value[i : i + 2], 16)) for i in (1, 3, 5))})"


LIGHT, DARK = colour(palette.LIGHT["paper"]), colour(palette.DARK["paper"])


def check(seen: dict[str, Any], width: int, paper: str) -> None:
    """What holds for every page."""
    assert seen["width"] == width
    assert seen["overflow"] <= 0, "the page must not scroll sideways"
    assert seen["paper"] == paper
    before, after, way = seen["sorted"]
    number = [float("-inf") if value is None else float(value) for value in after]
    assert number == sorted(number, reverse=True) and way == "descending" and seen["focused"]
    assert sorted(before, key=str) == sorted(after, key=str)
    known = [float(value) for value in seen["reversed"][0] if value is not None]
    assert known == sorted(known) and seen["reversed"][1] == "ascending"
    assert None not in seen["reversed"][0][: len(known)], "what is missing stays last"
    assert seen["names"][0] == sorted(seen["names"][0]) and seen["names"][1] == "none"
    assert seen["series"] == [True, False, "false", True, "true"]
    assert seen["tip"][0] is False and "accuracy" in seen["tip"][1] and seen["tip"][2]
    assert seen["gone"] == [True, 0]
    assert seen["titles"] == 0 and seen["labelled"]
    assert seen["print"][0] > 0 and seen["print"][1:] == [True, False]
    assert [name for name, _ in seen["themes"]] == ["theme: light", "theme: dark", "theme: auto"]
    assert [shade for _, shade in seen["themes"]] == [LIGHT, DARK, paper]
    assert seen["copies"] > 0


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_run_works(make_run, exercise, width: int) -> None:
    seen = exercise(write_run(make_run()), width)
    check(seen, width, LIGHT)
    assert seen["views"] == [[[False, True], ["false", "true"]], [[True, False], ["true", "false"]]]
    hidden, text, lines = seen["cross"]
    assert not hidden and lines == 1
    assert [line.split()[0] for line in text.splitlines()] == ["core.lora", "core.head", "core.full"]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_a_bench_works_in_the_dark(make_bench, exercise, tmp_path, width: int) -> None:
    page = write_bench(make_bench(), tmp_path / "bench.html")
    check(exercise(page, width, "--blink-settings=preferredColorScheme=0"), width, DARK)


def test_a_page_loads_from_a_file_without_a_complaint(make_run, tmp_path) -> None:
    dom, console = browse(write_run(make_run()), tmp_path / "profile")
    assert console == []
    assert "theme: auto" in dom and "aria-label" in dom


def test_a_complaint_would_be_noticed_and_the_policy_stops_other_scripts(make_run, tmp_path) -> None:
    page = write_run(make_run())
    text = page.read_text("utf-8").replace("</body>", "<script>document.title = 'broken in'</script></body>")
    page.write_text(text, encoding="utf-8")
    dom, console = browse(page, tmp_path / "profile")
    assert len(console) == 1 and "Content Security Policy" in console[0]
    assert "<title>broken in</title>" not in dom


def test_a_browser_that_keeps_nothing_gets_the_page_too(make_run, tmp_path) -> None:
    """In a frame of no origin every use of localStorage raises."""
    page = html.escape(write_run(make_run()).read_text("utf-8"), quote=True)
    harness = tmp_path / "harness.html"
    harness.write_text(f'<!doctype html><iframe sandbox="allow-scripts" srcdoc="{page}"></iframe>', "utf-8")
    _, console = browse(harness, tmp_path / "profile")
    assert console == []
