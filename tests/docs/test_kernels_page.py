"""docs/kernels.md names what there is: operations, tolerances, rooflines; and its examples run."""

from __future__ import annotations

import importlib
import re

import pytest

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def page(repository):
    return (repository / "docs" / "kernels.md").read_text()


@pytest.fixture
def kernels():
    """The table of operations, left as it was."""
    from peftx_kernels import table, use

    before = {op: dict(names) for op, names in table._table.items()}
    yield table
    for op, names in before.items():
        table._table[op].clear()
        table._table[op].update(names)
    use(None)


def example(page, name):
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found, f"docs/kernels.md has no example {name!r}"
    space = {"__name__": "example"}
    exec(compile(found.group(1), f"docs/kernels.md:{name}", "exec"), space)
    return space


def test_every_operation_is_there_and_no_other(page, kernels):
    section = page.partition("## The operations")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(kernels._table)


def test_the_tolerances_are_those_of_the_tests(page):
    from peftx_kernels.testing import TOLERANCES

    names = "float64", "float32", "bfloat16", "float16"
    assert "| " + " | ".join(names) + " |" in page
    values = [
        float(cell) for cell in re.search(r"^\| (1e-12 .*) \|$", page, re.MULTILINE).group(1).split("|")
    ]
    assert values == [TOLERANCES[getattr(torch, name)] for name in names]


def test_the_roofline_is_the_cost_model_s(page, repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    cards = importlib.import_module("kernelbench.cards").CARDS
    table = importlib.import_module("kernelbench.roofline").roofline_table
    assert table(next(card for card in cards if card.name == "H200")) in page


def test_an_implementation_is_registered_and_runs(page, kernels):
    torch.manual_seed(0)
    space = example(page, "register")
    assert set(space["found"]) == {"y", "x", "a", "b"}
    assert kernels.implementation("lora_linear") is space["merged"]
    with pytest.raises(NotImplementedError):
        space["peftx_kernels"].lora_linear(**space["tensors"], scale=1.0, dropout=0.5, training=True)


def test_a_plugin_declares_it(page, kernels):
    from peftx.plugins import KernelSpec

    space = example(page, "plugin")
    (spec,) = space["peftx_kernels"]()
    assert isinstance(spec, KernelSpec)
    kernels.register(spec.op, spec.name, spec.target)  # as the loader does
    assert spec.name in kernels.tiers()[spec.op].available
