"""Rows that are models of their own: trained by the loop, fitted in closed form, or without any parameter."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from peftx import bench
from peftx.bench.budget import fit_rows
from peftx.bench.grid import build_grid
from peftx.config.run import RunConfig
from peftx.config.suite import Suite
from peftx.errors import RunError
from peftx.plugins.registry import Registry
from peftx.runs import RunResult, execute
from peftx.runs.matching import why_not
from peftx.runs.reload import evaluate, rebuild, reopen, without_data
from peftx.runs.session import make_task

ROWS = ["toy.lines", "toy.means", "toy.first"]


def run(registry: Registry, out: Path, method: Any = "core.lora", **values: Any) -> RunResult:
    settings = {
        "task": "toy",
        "method": method if not isinstance(method, str) else {"name": method},
        "out": out,
        "device": "cpu",
        "baselines": [],
        "train": {"epochs": 2},
        "report": False,
    }
    return execute(RunConfig.model_validate(settings | values), registry)


def test_they_stand_beside_an_adapter(registry: Registry, tmp_path: Path) -> None:
    result = run(registry, tmp_path / "run", baselines=ROWS)
    rows = {row["method"]: row for row in result.rows}
    assert list(rows) == ["core.lora", *ROWS] and not any("error" in row for row in result.rows)
    assert [rows[name]["trainable"] for name in ROWS] == [8 * 4 + 4 + 4 * 3 + 3, 3 * 8, 0]
    assert [rows[name]["steps"] > 0 for name in ROWS] == [True, False, False]
    # centres in closed form are the answer to this task, and one class of three is a third
    assert rows["toy.means"]["metrics"]["test"]["accuracy"] > 90
    assert rows["toy.first"]["metrics"]["test"]["accuracy"] == pytest.approx(100 / 3, abs=0.1)
    assert rows["toy.means"]["selected_on"] == "closed form" and rows["toy.lines"]["selected_on"] == "val"
    # what has to be there for a forward: not the base model of the task, nor a second copy of what is trained
    assert [rows[name]["resident_bytes"] for name in ROWS] == [4 * 51, 4 * 24, 0]
    base = 4 * (8 * 16 + 16 + 2 * 16 + 16 * 3 + 3)
    assert rows["core.lora"]["resident_bytes"] == base + 4 * rows["core.lora"]["counts"]["adapter"]
    assert "efficiency" in rows["toy.lines"] and "efficiency" not in rows["toy.means"]


def test_an_adapters_row_does_not_change_beside_them(registry: Registry, tmp_path: Path) -> None:
    alone = run(registry, tmp_path / "a").rows[0]
    beside = run(registry, tmp_path / "b", baselines=ROWS).rows[0]
    assert alone["metrics"] == beside["metrics"]


@pytest.mark.parametrize("name", ROWS)
def test_such_a_run_is_scored_again_exactly(registry: Registry, tmp_path: Path, name: str) -> None:
    result = run(registry, tmp_path / "run", name)
    assert result.rows[0]["merges"] is False
    assert not any("export" in command for command in result.next_commands)
    again = evaluate(result.folder, registry)
    assert again.exact, again.summary()
    plan, record = reopen(result.folder, registry, locate=False)
    _, model = rebuild(plan, make_task(plan, without_data(record)), result.folder)
    assert sum(p.numel() for p in model.parameters()) in (51 * 2, 24 * 2, 0)  # with the base's, that are kept


def test_a_trained_one_goes_on_where_it_was_stopped(registry: Registry, tmp_path: Path) -> None:
    whole = run(
        registry, tmp_path / "a", "toy.lines", baselines=["toy.means"], train={"epochs": 2, "ema": 0.9}
    )
    again = run(
        registry, tmp_path / "b", "toy.lines", baselines=["toy.means"], train={"epochs": 2, "ema": 0.9}
    )
    assert [row["metrics"] for row in whole.rows] == [row["metrics"] for row in again.rows]
    # a run that lost its second row makes it again, and keeps the first
    record = json.loads((tmp_path / "b" / "record.json").read_text())
    (tmp_path / "b" / "record.json").write_text(
        json.dumps(record | {"status": "training", "rows": record["rows"][:1]})
    )
    config = RunConfig.model_validate(
        {
            "task": "toy",
            "method": {"name": "toy.lines"},
            "out": tmp_path / "b",
            "device": "cpu",
            "baselines": ["toy.means"],
            "train": {"epochs": 2, "ema": 0.9},
            "report": False,
        }
    )
    resumed = execute(config, registry, resume=True)
    assert [row["metrics"] for row in resumed.rows] == [row["metrics"] for row in whole.rows]


def test_the_base_model_is_not_built_for_them(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import toypack_task

    def refuse(self: Any) -> Any:
        raise AssertionError("built")

    monkeypatch.setattr(toypack_task.Sorting, "build_model", refuse)
    assert run(registry, tmp_path / "run", "toy.means", baselines=["toy.first"]).rows[1]["trainable"] == 0


def test_a_fit_that_forgets_a_parameter_is_named(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"^toy.forgetful gave no value for parameter centre: fit returns one"):
        run(registry, tmp_path / "run", "toy.forgetful")


def test_values_are_those_of_the_closed_form(registry: Registry, tmp_path: Path) -> None:
    result = run(registry, tmp_path / "run", "toy.means")
    plan, record = reopen(result.folder, registry, locate=False)
    from peftx.runs.session import load_data

    split: Any = load_data(plan).splits["train"]
    _, model = rebuild(plan, make_task(plan, without_data(record)), result.folder)
    expected = torch.stack([split.points[split.classes == label].double().mean(0) for label in range(3)])
    torch.testing.assert_close(model.centre.double(), expected, rtol=1e-5, atol=1e-6)


def test_they_are_rows_of_their_own_domain_alone(registry: Registry) -> None:
    spec, task = registry.methods["toy.means"].spec, registry.resolve_task("toy").spec
    assert why_not(spec, task) is None and spec.trained is False
    reason = why_not(spec, replace(task, name="other.sorting"))
    assert reason is not None and reason.startswith("toy.means is a model of its own domain")


def test_a_page_shows_them(registry: Registry, tmp_path: Path) -> None:
    result = run(registry, tmp_path / "run", "toy.means", baselines=["toy.first", "core.lora"], report=True)
    page = (result.folder / "report.html").read_text()
    assert all(name in page for name in ("toy.means", "toy.first", "core.lora"))
    assert not re.search(r">\s*nan\b", page, re.IGNORECASE)


def test_no_rate_is_searched_for_what_no_step_trains(registry: Registry) -> None:
    request = bench.Request(suite="x", search=(1e-3, 1e-2), device="cpu")
    suite = Suite(task="toy.sorting", about="x", data=["toy.points"], methods=["toy.means", "toy.lines"])
    grid = build_grid("x", suite, request, registry)
    assert [row.rates for row in grid.rows] == [(), (1e-3, 1e-2)]


def test_all_methods_of_a_bench_are_also_the_models(registry: Registry) -> None:
    suite = Suite(task="toy.sorting", about="x", data=["toy.points"])
    names = {row.method for row in build_grid("x", suite, bench.Request(suite="x"), registry).rows}
    assert {"core.lora", "toy.lines", "toy.means"} <= names and "toy.replay" not in names


def test_a_budget_leaves_them_as_they_are(registry: Registry) -> None:
    request = bench.Request(suite="x", methods=None, budget=200, device="cpu")
    suite = Suite(task="toy.sorting", about="x", data=["toy.points"], methods=["toy.lines", "core.lora"])
    rows = list(fit_rows(build_grid("x", suite, request, registry).rows, 200, registry))
    assert rows[0].trainable == 8 * 4 + 4 + 4 * 3 + 3 and "of its own" in rows[0].off
    assert rows[1].trainable is not None and "of its own" not in rows[1].off
