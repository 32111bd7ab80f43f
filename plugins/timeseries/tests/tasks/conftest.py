"""What pictures are held to."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

import pytest


@pytest.fixture
def page() -> Callable[[str], None]:
    """A check that text is one sound SVG whose places are numbers."""

    def check(text: str) -> None:
        root = ElementTree.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert "nan" not in " ".join(path.get("d", "") for path in root.iter() if path.get("d"))

    return check
