"""Escaping, and the check that keeps a plugin's markup from breaking a page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftx.report.markup import Html, esc, join, problem, tag


def test_children_that_are_no_markup_are_escaped() -> None:
    found = tag("td", "<script>alert('x')</script>", tag("b", "&"), None, class_="a", data_value=3)
    assert found == (
        '<td class="a" data-value="3">&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;<b>&amp;</b></td>'
    )


def test_attributes_are_escaped_and_may_be_left_out() -> None:
    assert tag("p", title='" onclick="x', hidden=False, id=None) == '<p title="&quot; onclick=&quot;x"></p>'
    assert tag("p", hidden=True) == "<p hidden></p>"
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'


def test_markup_is_not_escaped_twice() -> None:
    assert esc(esc("<")) == "&lt;"
    assert join(["<", Html("<b>")], " & ") == "&lt; &amp; <b>"


@given(st.text())
def test_any_text_becomes_text_that_utf8_can_hold_and_breaks_nothing(text: str) -> None:
    found = tag("p", text, title=text)
    found.encode("utf-8")
    assert problem(found) == ""
    assert found.count("<") == 2


@given(st.text(alphabet=st.characters(categories=("Cs",)), min_size=1))
def test_lone_surrogates_are_replaced(text: str) -> None:
    assert set(esc(text)) == {"\ufffd"}


@pytest.mark.parametrize(
    ("fragment", "cause"),
    [
        ("<div><p>a</div>", "</div> stands where </p> was expected"),
        ("<div>", "<div> is never closed"),
        ("</p>", "</p> stands where nothing was expected"),
        ("<script>1</script>", "<script> is not allowed in a panel"),
        ("<iframe></iframe>", "<iframe> is not allowed in a panel"),
        ('<img src="https://example.org/a.png">', "<img src> would fetch something"),
        ('<svg><use href="other.svg#a"></use></svg>', "<use href> would fetch something"),
        ('<p onclick="x()">a</p>', "the handler onclick is not allowed in a panel"),
        ('<a href=" JavaScript:x()">a</a>', "a link may not run anything"),
    ],
)
def test_what_would_break_a_page_or_run_is_named(fragment: str, cause: str) -> None:
    assert problem(fragment) == cause


@pytest.mark.parametrize(
    "fragment",
    [
        "",
        "text &amp; more",
        '<p>a<br>b</p><img src="data:image/png;base64,AAAA">',
        '<svg viewBox="0 0 1 1"><path d="M0 0"/><use href="#a"></use></svg>',
        '<a href="https://example.org">paper</a>',
    ],
)
def test_sound_fragments_pass(fragment: str) -> None:
    assert problem(fragment) == ""
