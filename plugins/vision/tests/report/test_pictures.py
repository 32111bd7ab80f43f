"""The panel of images: contact sheet and maps, foreign text and foreign data, and the page in a browser."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from peftx.plugins.manager import get_registry
from peftx.report import RunSource, write_run
from peftx.report.markup import problem
from peftx_vision.report import pictures

#: One red pixel, as PNG.
PIXEL = (
    "data:image/png;base64,"
    + base64.b64encode(
        bytes.fromhex(
            "89504e470d0a1a0a0000000d49484452000000010000000108020000009077 53de0000000c4944415408d763f8cfc000000301"
            "0100c9fe92ef0000000049454e44ae426082".replace(" ", "")
        )
    ).decode()
)
EVIL = '<script>"x"</script>'


def item(index: int, label: int, predicted: int, mapped: bool = False, **more: Any) -> dict[str, Any]:
    found = {"index": index, "label": label, "predicted": predicted, "probability": 0.9, "image": PIXEL}
    return found | ({"map": PIXEL} if mapped else {}) | more


def source(held: Any, names: tuple[str, ...] = ("cat", "dog"), split: str = "test") -> RunSource:
    record = {
        "format": 1,
        "status": "complete",
        "method": "core.lora",
        "primary": "accuracy",
        "data": {"name": "vision.pets", "classes": list(names)},
        "rows": [{"method": "core.lora", "metrics": {split: {"accuracy": 90.0, "n": 100, "correct": 60}}}],
    }
    return RunSource(Path("runs/a"), record, samples={"core.lora": {split: held}})


def text_of(markup: str) -> str:
    return unescape(re.sub("<[^>]*>", " ", markup))


def test_mistakes_and_maps_are_told_in_words() -> None:
    held = {"mistakes": [item(3, 0, 1, True, file="a/b.png"), item(5, 1, 0)], "hits": [item(7, 1, 1, True)]}
    panel = pictures(source(held))
    assert panel is not None and problem(panel.body_html) == ""
    assert panel.body_html.count("<img") == 2 + 2 * 2
    text = " ".join(text_of(panel.body_html).split())
    assert "2 of 40 mistakes, the most confident first" in text and "→ dog 90 %" in text
    assert 'alt="cat taken for dog"' in panel.body_html and 'alt="dog, recognised"' in panel.body_html
    assert "true class: cat\npredicted: dog\nprobability: 0.9000\na/b.png" in unescape(panel.body_html)
    assert "small copies of 3 images" in panel.note and "--no-samples" in panel.note


def test_almost_sure_is_not_shown_as_sure() -> None:
    panel = pictures(source({"mistakes": [item(0, 0, 1, probability=0.99996)]}))
    assert panel is not None and "99.99 %" in panel.body_html and "100" not in text_of(panel.body_html)


def test_validation_where_there_is_no_test() -> None:
    panel = pictures(source({"mistakes": [item(0, 0, 1)]}, split="val"))
    assert panel is not None and "validation split" in panel.note


def test_without_mistakes_the_page_says_so() -> None:
    panel = pictures(source({"mistakes": [], "hits": [item(1, 0, 0, True)]}))
    assert panel is not None and "No image of the test split was mistaken" in panel.body_html


@pytest.mark.parametrize("held", [{}, {"mistakes": []}, {"mistakes": "text"}, {"mistakes": [1, {}]}])
def test_nothing_to_show(held: Any) -> None:
    assert pictures(source(held)) is None
    assert pictures(RunSource(Path("a"), source({}).record)) is None


@pytest.mark.parametrize(
    "uri", ["http://x/a.png", "data:image/svg+xml;base64,AAAA", "data:text/html;base64,AAAA", PIXEL + '"x', 1]
)
def test_what_is_no_picture_of_ours_is_left_out(uri: Any) -> None:
    assert pictures(source({"mistakes": [item(0, 0, 1) | {"image": uri}]})) is None
    panel = pictures(source({"mistakes": [item(0, 0, 1) | {"map": uri}]}))
    assert panel is not None and panel.body_html.count("<img") == 1


def test_foreign_text_is_escaped_and_long_names_are_cut() -> None:
    long = "a class name of some thirty-five signs"
    held = {"mistakes": [item(0, 0, 1, True, file=EVIL), item(1, 7, 0)], "left_out": EVIL}
    panel = pictures(source(held, (EVIL, long)))
    assert panel is not None and problem(panel.body_html) == "" and EVIL not in panel.body_html
    assert long[:27] + "…" in panel.body_html and "true class: 7" in panel.body_html


def write(folder: Path, held: Any) -> None:
    (folder / "record.json").write_text(json.dumps(source(held).record))
    (folder / "samples.json").write_text(
        json.dumps({"format": 1, "rows": {"core.lora": {"test": held}}}), encoding="utf-8"
    )


def test_a_page_may_be_written_without_the_images(tmp_path: Path) -> None:
    write(tmp_path, {"mistakes": [item(0, 0, 1)]})
    assert "<h2>Images</h2>" in write_run(tmp_path, get_registry()).read_text("utf-8")
    bare = write_run(tmp_path, get_registry(), tmp_path / "bare.html", samples=False).read_text("utf-8")
    assert "<h2>Images</h2>" not in bare and "data:image" not in bare
    (tmp_path / "samples.json").write_text("{damaged")
    assert "<h2>Images</h2>" not in write_run(tmp_path, get_registry()).read_text("utf-8")


BROWSER = shutil.which(os.environ.get("PEFTX_BROWSER") or "chromium") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no browser: install Chromium, or name one with PEFTX_BROWSER")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_browser_shows_the_pictures_and_fetches_nothing(tmp_path: Path, theme: str) -> None:
    write(tmp_path, {"mistakes": [item(i, 0, 1, i < 3, size=[1, 1]) for i in range(24)], "hits": []})
    page = write_run(tmp_path, get_registry())
    # the page's own policy allows no further script: a frame of a harness looks at it
    harness = tmp_path / "harness.html"
    look = """const d = document.getElementById("page").contentWindow.document, all = [...d.images];
      document.getElementById("seen").textContent = JSON.stringify({count: all.length,
        drawn: all.every((one) => one.complete && one.naturalWidth === 1 && one.clientWidth > 50),
        overflow: d.documentElement.scrollWidth - d.documentElement.clientWidth,
        sharp: d.defaultView.getComputedStyle(all[0]).imageRendering});"""
    quoted = page.read_text("utf-8").replace("&", "&amp;").replace('"', "&quot;")
    harness.write_text(
        f'<!doctype html><meta charset="utf-8"><iframe id="page" width="390" height="800" srcdoc="{quoted}"></iframe>'
        f'<pre id="seen"></pre><script>document.getElementById("page").addEventListener("load", () => {{{look}}});'
        "</script>",
        encoding="utf-8",
    )
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --enable-logging=stderr --virtual-time-budget=9000"
    dark = ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []
    done = subprocess.run(
        [
            str(BROWSER),
            *flags.split(),
            *dark,
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            harness.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert not re.findall(r'CONSOLE.*?\] "(.*)"', done.stderr)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert found is not None, done.stderr[-1000:]
    seen = json.loads(unescape(found[1]))
    assert seen == {"count": 24 + 6, "drawn": True, "overflow": 0, "sharp": "pixelated"}


def test_it_is_torch_free() -> None:
    code = (
        "import sys, peftx_vision.report.pictures; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
