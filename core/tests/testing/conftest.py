"""The toys, installed for these tests as real distributions would be: entry points on the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from peftx.plugins.manager import forget, get_registry
from peftx.plugins.registry import Registry


@pytest.fixture(scope="module")
def toys() -> Iterator[Registry]:
    """A registry with core, the vision pack when it is there, and the toys."""
    folder = str(Path(__file__).parent / "toys")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        for name in ("PEFTX_DISABLE_PLUGINS", "PEFTX_PLUGINS"):
            patch.delenv(name, raising=False)
        forget()
        yield get_registry()
    forget()
    for name in [name for name in sys.modules if name.startswith("kit_toys")]:
        del sys.modules[name]
