"""The toy pack, installed for these tests as a real distribution would be: an entry point on the path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from peftx.plugins.manager import forget, get_registry
from peftx.plugins.registry import Registry


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Registry with core and the toy pack alone."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "toypack"))
    monkeypatch.delenv("PEFTX_DISABLE_PLUGINS", raising=False)
    monkeypatch.setenv("PEFTX_PLUGINS", "core,toy")
    forget()
    yield get_registry()
    forget()
    for name in ("toypack_plugin", "toypack_task", "toypack_kill"):
        sys.modules.pop(name, None)
