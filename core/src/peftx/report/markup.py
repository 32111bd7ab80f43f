"""HTML and SVG as values: text is escaped unless it is `Html`, so a page cannot be broken by what it shows.

Class names, error messages and notes on a page come from data sets and packages of other people.

    tag("td", "<b>", class_="wide")     Html('<td class="wide">&lt;b&gt;</td>')
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from html.parser import HTMLParser

__all__ = ["Html", "attributes", "esc", "join", "problem", "tag"]

#: Elements of HTML that have no content and no end.
VOID = frozenset("area base br col embed hr img input link meta source track wbr".split())
#: What no text may hold: a page with it would not be well-formed, or not be UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Html(str):
    """Markup that is safe to insert as it is."""

    __slots__ = ()


def esc(text: object) -> Html:
    """Return any value as text of a page, quotes included; characters that cannot be shown become U+FFFD."""
    if isinstance(text, Html):
        return text
    return Html(html.escape(_UNPRINTABLE.sub("\ufffd", str(text)), quote=True))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Put parts together; those that are no `Html` are escaped."""
    return Html(esc(between).join(esc(part) for part in parts if part is not None))


def attributes(values: dict[str, object]) -> str:
    """Attributes of a tag: ``class_`` is class, ``data_value`` is data-value; None and False leave one out."""
    found = []
    for key, value in values.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-")
        found.append(f" {name}" if value is True else f' {name}="{esc(value)}"')
    return "".join(found)


def tag(name: str, /, *children: object, **values: object) -> Html:
    """Return one element; children that are no `Html` are escaped, None is left out."""
    start = f"<{name}{attributes(values)}>"
    return Html(start) if name in VOID else Html(f"{start}{join(children)}</{name}>")


def problem(fragment: str) -> str:
    """Say in one sentence why a fragment of HTML would break a page; an empty string when it would not.

    Every element must be closed, in order, and nothing may run or be fetched: no script, no frame, no style sheet, no
    handler, no source but ``data:`` or a place on the page itself.
    """
    reader = _Reader()
    reader.feed(fragment)
    reader.close()
    if not reader.found and reader.open:
        reader.found = f"<{reader.open[-1]}> is never closed"
    return reader.found


class _Reader(HTMLParser):
    """Keeps the stack of open elements, and the first thing that is wrong."""

    _RUNNING = frozenset("script iframe object embed link base meta style form".split())

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.found = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._check(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._check(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open[-1] != tag:
            expected = f"</{self.open[-1]}>" if self.open else "nothing"
            self._note(f"</{tag}> stands where {expected} was expected")
            return
        self.open.pop()

    def _check(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self._RUNNING:
            self._note(f"<{tag}> is not allowed in a panel")
        for name, value in attrs:
            if name.startswith("on"):
                self._note(f"the handler {name} is not allowed in a panel")
            fetched = name in ("src", "srcset", "data", "poster") or (
                name in ("href", "xlink:href") and tag != "a"
            )
            if fetched and not (value or "").startswith(("data:", "#")):
                self._note(f"<{tag} {name}> would fetch something")
            if name == "href" and (value or "").strip().lower().startswith("javascript:"):
                self._note("a link may not run anything")

    def _note(self, text: str) -> None:
        self.found = self.found or text
