"""The shell of a page: one HTML file that fetches nothing, in light and dark, on paper and on a phone.

A content security policy forbids the browser to load anything or to run any script but the one below, by its hash:
should foreign text ever get past the escaping, it stays text.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources

from peftx.report.markup import Html, esc, join, tag
from peftx.report.palette import sheet

__all__ = ["page"]


def page(title: str, header: object, sections: Sequence[tuple[str, str, Html]], footer: str) -> str:
    """A whole page. `sections`: the key, the name in the menu and the markup of each part."""
    script = _asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content="peftx"),
        tag("title", title),
        tag("style", Html(sheet() + _asset("report.css"))),
        tag("script", Html(script)),
    )
    links = [tag("a", name, href=f"#{key}") for key, name, _ in sections]
    bar = tag(
        "nav",
        tag("div", *links, class_="links"),
        tag("button", "theme: auto", type="button", id="theme", hidden=True),
        class_="menu",
        aria_label="sections",
    )
    body = tag(
        "body",
        tag("a", "skip to the results", href="#main", class_="skip"),
        tag("header", tag("div", header, class_="wide"), class_="head"),
        bar,
        tag("main", join(section for _, _, section in sections), id="main", class_="wide"),
        tag("footer", tag("div", esc(footer), class_="wide")),
        tag("div", id="tip", role="status", hidden=True),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


@cache
def _asset(name: str) -> str:
    return (resources.files("peftx.report") / "assets" / name).read_text(encoding="utf-8")
