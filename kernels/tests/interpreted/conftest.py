"""Tests of Triton kernels through its interpreter, which has to be on before Triton is imported.

`kernels/tests/test_interpreter.py` runs each file here in a process of its own; elsewhere they are not collected.
By hand: ``TRITON_INTERPRET=1 python -m pytest kernels/tests/interpreted``, all of them or with ``--sample`` three cases
of each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--sample", action="store_true", help="of every test the first case, and two others")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--sample"):
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    kept = [
        one for of in cases.values() for one in dict.fromkeys((of[0], of[len(of) // 3], of[2 * len(of) // 3]))
    ]
    items[:] = [item for item in items if item in set(kept)]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """The same random numbers for every test, one thread, and the kernels chosen."""
    from peftx_kernels import use

    torch.manual_seed(0)
    torch.set_num_threads(1)
    use("triton")
    yield
    use(None)


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """New memory holds NaN: whatever a kernel forgets to write is found."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["fused", "library"])
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to the products with W: ours, and the library's with the rest added in place."""
    from peftx_kernels.ops.lora_linear import launch

    monkeypatch.setattr(launch, "LONGEST", 2048 if request.param == "fused" else 0)
    return str(request.param)
