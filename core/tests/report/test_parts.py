"""Tables, switches, legends, facts."""

from __future__ import annotations

import re

import pytest

from peftx.report.markup import problem
from peftx.report.parts import Field, copyable, facts, legend, plain, table, views


def cells(found: str) -> list[list[str]]:
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", found.partition("</thead>")[2])
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]


def test_a_table_shows_rounded_figures_and_keeps_all_digits() -> None:
    found = table(
        [
            Field("method", ["core.lora", "<b>"], "text"),
            Field("accuracy", [98.0512345, None], "percent", "%", best="max"),
            Field("stored", [267_304, 5_160], "bytes", hint='size "in" bytes'),
        ],
        rows=["own", ""],
        caption="results",
    )
    assert problem(found) == ""
    assert cells(found) == [["core.lora", "98.05", "261"], ["&lt;b&gt;", "–", "5"]]
    assert 'data-value="98.0512345" title="98.0512345"' in found and 'title="5160 bytes"' in found
    assert (
        'accuracy<span class="unit"> (%)</span>' in found
        and 'stored<span class="unit"> (KiB)</span>' in found
    )
    assert 'title="size &quot;in&quot; bytes"' in found
    assert found.count('aria-sort="none"') == 3 and found.count("<button") == 3


def test_the_best_stands_out_among_those_that_may() -> None:
    values = [1.0, 3.0, 9.0]
    best = re.findall(
        r'class="num best" data-value="([\d.]+)"', table([Field("a", values, best="max", among=2)])
    )
    assert best == ["3.0"]
    assert re.findall(r'best" data-value="([\d.]+)"', table([Field("a", values, best="min")])) == ["1.0"]
    assert "best" not in table([Field("a", [1.0], best="max")]), "one row is best of nothing"


def test_bodies_are_sorted_apart() -> None:
    found = table([Field("a", ["x", "y", "z"], "text")], groups=(2, 1))
    assert [body.count("<tr") for body in found.split("<tbody>")[1:]] == [2, 1]


def test_a_switch_shows_the_chosen_view_and_hides_the_others() -> None:
    found = views([("linear", "A"), ("log", "B")], "scale", chosen=1)
    assert problem(found) == ""
    assert '<div class="view" data-view="0" hidden>A</div><div class="view" data-view="1">B</div>' in found
    assert re.findall(r'aria-pressed="(\w+)"', found) == ["false", "true"]
    assert views([("only", "A")], "scale") == "A"


def test_a_legend_names_every_series() -> None:
    found = legend(["core.lora", "<b>"], own=0)
    assert problem(found) == "" and "&lt;b&gt;" in found
    assert re.findall(r'data-toggle="(\d)"', found) == ["0", "1"]
    assert "button" not in legend(["a"], toggles=False)


def test_facts_without_a_value_are_left_out() -> None:
    assert facts([("a", "1"), ("b", None), ("c", ""), ("d", 0)]).count("<dt>") == 2


def test_copyable_text_is_escaped_once() -> None:
    assert '<code>echo "&lt;a&gt;"</code>'.replace('"', "&quot;") in copyable('echo "<a>"')
    assert problem(copyable("")) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (True, "yes"),
        ([], "–"),
        (["a", 1], "a, 1"),
        ({"a": 0.01}, "a=0.01"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1e-05, "1e-05"),
    ],
)
def test_options_as_text(value: object, text: str) -> None:
    assert plain(value) == text
