"""Panels of plugins: shown, and a bad one costs only itself."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace

import pytest

from peftx.plugins import PanelSpec
from peftx.plugins.loader import PluginInfo
from peftx.plugins.registry import Entry
from peftx.report import Panel, RunSource, write_run
from peftx.report.panel import plugin_panels


def good(source):
    return Panel("Sites", f"<p>{source}</p>", "what was adapted")


def raises(source):
    raise KeyError("<nothing>")


def unbalanced(source):
    return Panel("Broken", "<div><p>a</div>")


def running(source):
    return Panel("Runs", "<script>alert(1)</script>")


def wrong(source):
    return "<p>a</p>"


def nothing(source):
    return None


@pytest.fixture
def registry(monkeypatch):
    """A registry whose panels are the functions of this file."""
    module = types.ModuleType("panels_of_this_test")
    functions = {f.__name__: f for f in (good, raises, unbalanced, running, wrong, nothing)}
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, "panels_of_this_test", module)
    info = PluginInfo("mine", "peftx-mine", "1.0", "ok", "")

    def make(*names: str, on: str = "run"):
        specs = [PanelSpec(f"mine.{name}", name.title(), f"panels_of_this_test:{name}", on) for name in names]
        return SimpleNamespace(panels={spec.name: Entry(spec, info) for spec in specs})

    return make


def test_panels_of_the_page_are_shown_and_none_is_left_out(registry) -> None:
    assert list(plugin_panels(registry("good", "nothing"), "run", "x")) == [
        Panel("Sites", "<p>x</p>", "what was adapted")
    ]
    assert list(plugin_panels(registry("good", on="bench"), "run", "x")) == []
    assert list(plugin_panels(None, "run", "x")) == []


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("raises", "KeyError: &#x27;&lt;nothing&gt;&#x27;"),
        ("unbalanced", "its markup is not sound: &lt;/div&gt; stands where &lt;/p&gt; was expected"),
        ("running", "&lt;script&gt; is not allowed in a panel"),
        ("wrong", "a panel must be a peftx.report.Panel or None, not str"),
        ("missing", "panels_of_this_test has no missing"),
    ],
)
def test_one_that_fails_is_a_line_with_its_cause(registry, name: str, cause: str) -> None:
    first, second = plugin_panels(registry(name, "good"), "run", "x")
    assert first.title == name.title() and second.title == "Sites"
    assert f"The panel mine.{name} of " in first.body_html and cause in first.body_html


def test_they_stand_on_the_page_with_a_place_in_its_menu(registry, make_run) -> None:
    folder = make_run()
    text = write_run(folder, registry("raises", "good")).read_text(encoding="utf-8")
    assert text.count('href="#panel-') == 2 and "what was adapted" in text
    assert "KeyError" in text and "<nothing>" not in text
    assert RunSource.read(folder).folder == folder
