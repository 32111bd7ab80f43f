"""What a run folder says, and that whatever it says is either understood or refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftx.errors import RunError
from peftx.results.facts import FAILED, OPEN, SCORED, canonical, read


def test_a_complete_run(tmp_path: Path, write_run: Callable[..., Path], make_row: Callable[..., Any]) -> None:
    folder = write_run(
        tmp_path / "r",
        make_row("core.dora", 98.0),
        make_row("core.head", 90.0),
        {"method": "core.full", "error": "loss is NaN"},
        data={"name": "toy.small", "limit": 3},
    )
    run = read(folder)
    assert (run.method, run.data, run.model, run.primary, run.unit) == (
        "core.dora",
        "toy.small",
        "toy.net",
        "accuracy",
        "%",
    )
    assert run.setup == {"task": {}, "data": {"limit": 3}, "model": {}}
    assert run.tested and run.has_test and run.weights == "net.safetensors"
    assert [(row.method, row.baseline, row.state) for row in run.rows] == [
        ("core.dora", False, SCORED),
        ("core.head", True, SCORED),
        ("core.full", True, FAILED),
    ]
    own = run.rows[0]
    assert own.settings["option"] == {"rank": 8} and own.settings["train"]["lr"] == 0.01
    assert own.settings["run"] == {"precision": "fp32"}
    assert own.metrics["test"] == {"accuracy": 98.0, "loss": 0.25} and own.saved_bytes == 2048
    assert run.rows[2].error == "loss is NaN"


@pytest.mark.parametrize(
    ("status", "changes", "state", "error"),
    [
        ("training", {}, OPEN, ""),
        ("interrupted", {}, OPEN, ""),
        ("failed", {"error": "loss is NaN at step 3"}, FAILED, "loss is NaN at step 3"),
        ("failed", {}, FAILED, "it ended without a word"),
    ],
)
def test_a_run_without_rows_has_its_own_one(
    tmp_path: Path, write_run: Callable[..., Path], status: str, changes: Any, state: str, error: str
) -> None:
    run = read(write_run(tmp_path / "r", status=status, options={"rank": 4}, **changes))
    (row,) = run.rows
    assert (row.state, row.error, row.baseline) == (state, error, False)
    assert row.settings["option"]["rank"] == 4 and row.settings["train"]["lr"] == 0.01


def test_a_record_without_a_plan_takes_its_settings_from_the_configuration(
    tmp_path: Path, write_run: Callable[..., Path]
) -> None:
    folder = write_run(tmp_path / "r", status="failed", options={"rank": 4})
    record = json.loads((folder / "record.json").read_text())
    del record["plan"]
    (folder / "record.json").write_text(json.dumps(record))
    assert read(folder).rows[0].settings["option"]["rank"] == 4


def test_a_run_that_was_not_to_be_tested_says_so(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    run = read(write_run(tmp_path / "r", tested=False))
    assert not run.tested and run.has_test and "test" not in run.rows[0].metrics


def test_figures_that_are_not_finite_are_none(
    tmp_path: Path, write_run: Callable[..., Path], make_row: Callable[..., Any]
) -> None:
    own = make_row("core.lora", 1.0)
    own["metrics"]["test"] = {"accuracy": None, "loss": float("nan")}
    own["seconds"] = float("inf")
    own["efficiency"] = None
    row = read(write_run(tmp_path / "r", own)).rows[0]
    assert row.metrics["test"] == {"accuracy": None, "loss": None}
    assert row.seconds is None and row.saved_bytes is None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("record.json", "", "is damaged"),
        ("record.json", '{"format": 1', "is damaged"),
        ("record.json", "[]", "is damaged"),
        ("record.json", '{"format": 1}', "is damaged: it says nothing about 'data'"),
        ("record.json", '{"format": 99}', "was written by a later peftx"),
        ("record.json", "[" * 100_000, "is damaged"),
        ("config.toml", "seed = ", "is not valid TOML"),
        ("config.toml", "task = 3", "is damaged"),
    ],
)
def test_what_is_damaged_is_refused_with_its_cause(
    tmp_path: Path, write_run: Callable[..., Path], name: str, text: str, message: str
) -> None:
    folder = write_run(tmp_path / "r")
    (folder / name).write_text(text)
    with pytest.raises(RunError, match=r"damaged|later|TOML") as caught:
        read(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value)


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(RunError, match="the run did not finish"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 2**70),
        ("seed", None),
        ("seed", "0"),
        ("method", 3),
        ("rows", 7),
        ("rows", [3]),
        ("rows", [{"method": "core.lora", "metrics": {"test": 3}}]),
        ("rows", [{"method": "core.lora", "metrics": {"test": {"accuracy": "good"}}}]),
        ("rows", [{"method": "core.lora", "metrics": {"test": {"accuracy": 10**400}}}]),
        ("units", []),
        ("data", "digits"),
        ("model", {}),
    ],
)
def test_a_record_of_another_shape_is_refused(
    tmp_path: Path, write_run: Callable[..., Path], key: str, value: Any
) -> None:
    folder = write_run(tmp_path / "r", **({} if key in ("data", "model", "seed", "method") else {key: value}))
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {key: value}))
    with pytest.raises(RunError, match="is damaged"):
        read(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    key=st.sampled_from(["rows", "plan", "data", "model", "units", "environment", "error", "seed"]),
    value=JSON,
)
def test_any_json_is_understood_or_refused(
    tmp_path: Path, write_run: Callable[..., Path], key: str, value: Any
) -> None:
    folder = write_run(tmp_path / "r")
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | {key: value}))
    try:
        run = read(folder)
    except RunError as error:
        assert "is damaged" in str(error)
    else:
        assert run.rows


def test_equal_settings_have_one_text() -> None:
    assert (
        canonical({"b": 1.0, "a": [True, None]})
        == canonical({"a": (True, None), "b": 1})
        == '{"a":[true,null],"b":1}'
    )
    assert canonical({"a": 1}) != canonical({"a": 1.5}) and canonical(1) != canonical(True)


def test_text_that_cannot_be_stored_is_made_storable(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    folder = write_run(tmp_path / "r", status="failed", error="half \ud800 a letter")
    read(folder).error.encode()
