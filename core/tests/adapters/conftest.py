"""What the tests of this folder share: the kit's small models, and the six methods of core.

A test that takes ``case`` runs on every model, one that takes ``method`` under every method of core. Tests cannot
import each other, so what they share comes as fixtures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from peftx.testing import CASES, Case, Subject, Trial, case_named, laws_of
from peftx.testing import perturb as add_noise
from peftx.testing.cases import Toy

METHODS = ("core.full", "core.head", "core.bitfit", "core.lora", "core.rslora", "core.dora")
#: models in which a method has nothing to train
WITHOUT = {"core.bitfit": ("embedding", "embedding_max_norm")}


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def _runs(case: Case, method: str) -> bool:
    # rsLoRA is LoRA at another scale: two models are enough
    return case.name not in WITHOUT.get(method, ()) and (
        method != "core.rslora" or case.name in ("conv2d", "timm_vit")
    )


def _marks(case: Case) -> list[Any]:
    return [pytest.mark.skip(reason=case.missing())] if case.missing() else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marks = metafunc.definition.iter_markers("parametrize")
    lists = [mark.args[0] for mark in marks]
    chosen = {name for names in lists for name in (names.split(",") if isinstance(names, str) else names)}
    names = [name for name in metafunc.fixturenames if name not in chosen]
    if "case" in names and "method" in names:
        pairs = [
            pytest.param(case, method, id=f"{case.name}-{method.removeprefix('core.')}", marks=_marks(case))
            for case in CASES
            for method in METHODS
            if _runs(case, method)
        ]
        metafunc.parametrize(("case", "method"), pairs)
    elif "case" in names:
        metafunc.parametrize("case", [pytest.param(c, id=c.name, marks=_marks(c)) for c in CASES])
    elif "method" in names:
        metafunc.parametrize("method", METHODS, ids=lambda name: name.removeprefix("core."))


def _here(case: Case) -> Case:
    if case.missing():
        pytest.skip(case.missing())
    return case


@pytest.fixture
def case_of() -> Callable[[str], Case]:
    """A case by its name."""
    return lambda name: _here(case_named(name))


@pytest.fixture
def toy() -> type[Toy]:
    """A trunk with a declared head."""
    return Toy


@pytest.fixture
def perturb() -> Callable[..., None]:
    """Add noise to tensors, seeded, so that an adapter does something."""
    return add_noise


@pytest.fixture
def keeps() -> Callable[[str, str, Case], None]:
    """Judge a law of the kit on a method and a model; raises when it does not hold."""
    laws = {law.name: law for law in laws_of("method")}
    return lambda name, method, case: laws[name](Trial(Subject(method), case))
