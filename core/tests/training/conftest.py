"""The toy task of the runs' tests, without its plugin."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

TOYPACK = Path(__file__).parents[1] / "runs" / "toypack"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """A function of the network's and the data's options that returns a task; `toy.module` is its module."""
    monkeypatch.syspath_prepend(str(TOYPACK))
    import toypack_plugin
    import toypack_task

    from peftx.tasks import ModelSource

    def make(
        *, depth: int = 1, unused: bool = False, batch_norm: bool = False, explode_at: int = 0, **data: Any
    ) -> Any:
        points = toypack_task.load_points(toypack_plugin.DataConfig(**data), None)
        config = toypack_plugin.ModelConfig(depth=depth, unused=unused, batch_norm=batch_norm)
        source = ModelSource("toy.net", {}, lambda outputs: toypack_task.build_net(config, outputs))
        return toypack_task.Sorting(SimpleNamespace(explode_at=explode_at), points, source, None)

    make.module = toypack_task  # type: ignore[attr-defined]
    yield make
    for name in ("toypack_plugin", "toypack_task", "toypack_kill"):
        sys.modules.pop(name, None)
