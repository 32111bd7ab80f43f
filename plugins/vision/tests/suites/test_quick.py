"""vision/quick: equal lengths of training, every method that fits, sizes under a budget on the real network."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from peftx.bench import Request, prepare, run
from peftx.bench.budget import TOLERANCE
from peftx.config.suite import label, parse_label
from peftx.plugins import get_registry
from peftx.runs import record
from peftx_vision.suites import QUICK

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")

FEW = parse_label("vision.digits limit_train=100")


def test_both_tables_train_for_the_same_number_of_steps() -> None:
    lengths = {
        label(one): math.ceil((one.options.get("limit_train") or 1079) / one.train["batch_size"])
        * one.train["epochs"]
        for one in QUICK.data
    }
    assert lengths == {"vision.digits": 136, "vision.digits limit_train=100": 136}
    assert "136 optimizer steps" in QUICK.about and f"{100 / 359:.2f} points" in QUICK.about


def test_the_grid_has_every_method_of_core_and_of_the_pack(tmp_path: Path) -> None:
    bench = prepare(Request(suite="vision/quick", out=tmp_path / "out", offline=True))
    registry = get_registry()
    own = {name for name, entry in registry.methods.items() if entry.domain in ("core", "vision")}
    for data in ("vision.digits", "vision.digits limit_train=100"):
        assert own <= {row.label for row in bench.rows if row.data == data}
    assert {row.model for row in bench.rows} == {"vision.vit_micro"} and {
        row.seeds for row in bench.rows
    } == {3}


@pytest.mark.parametrize("budget", [30_000, 50_000, 101_010])
def test_sizes_on_vit_micro(tmp_path: Path, budget: int) -> None:
    methods = (
        "core.lora",
        "core.rslora",
        "core.dora",
        "core.shira",
        "vision.snell",
        "vision.snella",
        "core.head",
    )
    request = Request(
        suite="vision/quick",
        methods=tuple(map(parse_label, methods)),
        data=(FEW,),
        budget=budget,
        out=tmp_path / "out",
        offline=True,
    )
    rows = {row.label: row for row in prepare(request).rows}
    for name in ("core.lora", "core.rslora", "core.dora"):
        trainable = rows[name].trainable
        assert trainable is not None and abs(trainable / budget - 1) <= TOLERANCE and not rows[name].off
    for name in ("vision.snell", "vision.snella"):
        assert rows[name].plan.method_config.rank % 2 == 0
        assert bool(rows[name].off) == (abs((rows[name].trainable or 0) / budget - 1) > TOLERANCE)
    assert rows["core.head"].off.endswith("it has no size to choose")


@pytest.mark.slow
def test_a_corner_of_it_runs(tmp_path: Path) -> None:
    values: dict[str, Any] = {"methods": (parse_label("core.head"),), "data": (FEW,), "seeds": 1}
    request = Request(
        suite="vision/quick",
        train={"epochs": 1},
        device="cpu",
        offline=True,
        efficiency=False,
        out=tmp_path / "out",
        **values,
    )
    outcome = run(request)
    (board,) = outcome.boards
    assert (board.data, board.split, board.unit) == ("vision.digits limit_train=100", "test", "%")
    folder = tmp_path / "out" / "vision.digits-limit_train=100" / "vision.vit_micro" / "core.head" / "seed0"
    row = record.read(folder)["rows"][0]
    assert row["steps"] == 2 and board.standings[0].values == (row["metrics"]["test"]["accuracy"],)
