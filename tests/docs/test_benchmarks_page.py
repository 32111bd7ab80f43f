"""The examples of docs/benchmarks.md are suites, and the small one among them runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Request, find_suite, prepare
from peftx.config.suite import Suite, label
from peftx.plugins import SuiteSpec, get_registry

pytest.importorskip("peftx_vision", reason="the examples are suites of vision")


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "benchmarks.md").read_text()


def example(page: str, name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```\w+\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert found, f"docs/benchmarks.md has no example {name!r}"
    return found.group(1)


def python(page: str, name: str) -> dict[str, Any]:
    space: dict[str, Any] = {}
    exec(compile(example(page, name), f"docs/benchmarks.md:{name}", "exec"), space)
    return space


def test_the_file_is_a_suite_and_its_grid_can_be_made(page: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(example(page, "toml"))
    name, suite = find_suite(str(file), get_registry())
    assert name == "mine" and suite.seeds == 2
    bench = prepare(Request(suite=str(file), out=tmp_path / "out", offline=True))
    assert [row.label for row in bench.rows[:4]] == [
        "core.head",
        "core.lora rank=2",
        "core.lora rank=8",
        "core.lora rank=32",
    ]
    assert [row.values["train"]["epochs"] for row in bench.rows] == [8] * 4 + [68] * 4
    assert bench.loop.total == 2 * 4 * 2


def test_the_suite_of_a_pack_is_the_same_grid(page: str, tmp_path: Path) -> None:
    suite = python(page, "suite")["SIZES"]
    assert isinstance(suite, Suite)
    (tmp_path / "mine.toml").write_text(example(page, "toml"))
    _, of_file = find_suite(str(tmp_path / "mine.toml"), get_registry())
    assert [label(one) for one in suite.methods] == [label(one) for one in of_file.methods]
    assert [label(one) for one in suite.data] == [label(one) for one in of_file.data]
    assert suite.published[0].data == "vision.digits"
    (spec,) = python(page, "manifest")["peftx_suites"]()
    assert isinstance(spec, SuiteSpec) and spec.name == "mine.sizes"


def test_the_averages_of_the_page_are_figures_by_name(page: str) -> None:
    assert python(page, "averages")["averages"]({"a": 90.0, "b": 80.0}) == {"mean": 85.0, "worst": 80.0}


def test_every_field_of_a_suite_is_in_the_table(page: str) -> None:
    table = page.partition("| field | meaning |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", table))
    assert set(Suite.model_fields) <= named


def test_the_table_of_protocols_names_every_suite_of_vision(page: str) -> None:
    suites = [entry.name for entry in get_registry().suites.values() if entry.domain == "vision"]
    assert all(
        f"`{name.replace('.', '/', 1)}`" in page or f"## {name.replace('.', '/', 1)}" in page
        for name in suites
    )
    assert len(suites) >= 4
