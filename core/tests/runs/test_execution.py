"""A whole run on the toy pack: the table, the folder, the record, events, failures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from peftx.config.run import RunConfig
from peftx.errors import DataError, PeftxError, TrainingError
from peftx.plugins.registry import Registry
from peftx.runs import RunResult, execute
from peftx.training import Progress

LORA = {"name": "core.lora", "targets": ["glob:*fc1"]}


def run(registry: Registry, out: Path, progress: Progress | None = None, **values: Any) -> RunResult:
    settings = {
        "task": "toy",
        "method": LORA,
        "out": out,
        "device": "cpu",
        "baselines": ["core.head", "core.full"],
        "efficiency": False,
        "report": False,
    }
    return execute(RunConfig.model_validate(settings | values), registry, progress)


def test_method_and_baselines_stand_in_one_table(registry: Registry, tmp_path: Path) -> None:
    result = run(registry, tmp_path / "run")
    rows = result.table.to_dict()
    assert [row["method"] for row in rows] == ["core.lora", "core.head", "core.full"]
    assert [row["trainable"] for row in rows] == [
        8 * (8 + 16) + 16 * 3 + 3,
        16 * 3 + 3,
        8 * 16 + 16 + 2 * 16 + 51,
    ]
    assert all(row["val"] > 60 and row["test"] > 60 and row["seconds"] > 0 for row in rows)
    assert all(row["stored_bytes"] >= 4 * row["trainable"] for row in rows)
    assert "val accuracy %" in result.table.render().splitlines()[0]
    assert result.next_commands[0] == f"peftx eval {tmp_path / 'run'}"


def test_the_folder_holds_config_record_metrics_and_adapter(registry: Registry, tmp_path: Path) -> None:
    result = run(registry, tmp_path / "run", train={"epochs": 2}, seed=3)
    assert {path.name for path in result.folder.iterdir()} == {
        "config.toml",
        "record.json",
        "metrics.jsonl",
        "adapter",
        "details.json",
        ".lock",
    }
    record = json.loads((result.folder / "record.json").read_text())
    assert record["status"] == "complete" and record["seed"] == 3
    assert record["data"]["classes"] == ["c0", "c1", "c2"] and len(record["data"]["fingerprint"]) == 64
    assert record["data"]["sizes"] == {"train": 90, "val": 30, "test": 33}
    assert record["rows"][0]["metrics"]["test"]["n"] == 33
    assert record["rows"][0]["selected_on"] == "val"
    assert record["eval_batch_size"] == 256
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    for name in ("core.lora", "core.head", "core.full"):
        own = [line for line in lines if line["row"] == name]
        assert [line["step"] for line in own if line["event"] == "step"] == list(range(1, 2 * 6 + 1))
        assert [line["epoch"] for line in own if line["event"] == "epoch"] == [1, 2]
        assert [line["split"] for line in own if line["event"] == "evaluated"] == ["val", "test"]


def test_rows_share_epochs_and_batches_but_not_the_learning_rate(registry: Registry, tmp_path: Path) -> None:
    rows = run(registry, tmp_path / "run", train={"epochs": 2, "lr": 5e-3}).rows
    assert [row["train"]["lr"] for row in rows] == [5e-3, 1e-1, 1e-2]
    assert {row["train"]["epochs"] for row in rows} == {2}
    assert {row["train"]["batch_size"] for row in rows} == {16}


def test_the_same_run_twice_gives_the_same_figures(registry: Registry, tmp_path: Path) -> None:
    first, second = (run(registry, tmp_path / name, train={"epochs": 2}) for name in ("a", "b"))
    assert [row["metrics"] for row in first.rows] == [row["metrics"] for row in second.rows]
    assert (first.folder / "metrics.jsonl").read_text() == (second.folder / "metrics.jsonl").read_text()
    assert (first.folder / "config.toml").read_text() == (second.folder / "config.toml").read_text()


def test_a_baseline_does_not_change_the_methods_row(registry: Registry, tmp_path: Path) -> None:
    alone = run(registry, tmp_path / "a", train={"epochs": 2}, baselines=[]).rows
    beside = run(registry, tmp_path / "b", train={"epochs": 2}).rows
    assert len(alone) == 1
    assert alone[0]["metrics"] == beside[0]["metrics"]


def test_data_without_a_test_split_have_no_test_column(registry: Registry, tmp_path: Path) -> None:
    result = run(registry, tmp_path / "run", train={"epochs": 1}, data={"name": "points", "test": False})
    assert "test" not in result.table.render()
    assert any("no test split" in note for note in result.notes)
    assert set(result.rows[0]["metrics"]) == {"val"}


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TrainingError("the loss became nan at step 3"), "the loss became nan at step 3"),
        (ZeroDivisionError("by chance"), "ZeroDivisionError: by chance"),
    ],
)
def test_a_failing_baseline_is_a_row_that_says_so(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, cause: str
) -> None:
    import peftx.runs.rows as rows

    real = rows.train_row

    def failing(row: Any, *arguments: Any, **named: Any) -> Any:
        if row.method.name == "core.head":
            raise error
        return real(row, *arguments, **named)

    monkeypatch.setattr(rows, "train_row", failing)
    result = run(registry, tmp_path / "run", train={"epochs": 1})
    assert result.rows[1] == {"method": "core.head", "error": cause}
    assert f"core.head failed: {cause}" in result.notes
    assert result.table.render().splitlines()[3].split() == ["core.head", *["-"] * 7]
    assert result.record["status"] == "complete" and len(result.rows) == 3


def test_the_methods_own_failure_is_an_error_that_the_record_tells(
    registry: Registry, tmp_path: Path
) -> None:
    task = {"name": "toy", "explode_at": 4}  # the first pass warms up
    with pytest.raises(TrainingError, match=r"nan at step 3 of 30"):
        run(registry, tmp_path / "run", task=task)
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["status"] == "failed" and "nan at step 3 of 30" in record["error"] and record["rows"] == []
    assert not (tmp_path / "run" / "adapter").exists()


def test_too_little_memory_is_one_sentence(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import peftx.runs.rows as rows

    def full(*arguments: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(rows, "fit", full)
    with pytest.raises(
        TrainingError, match=r"training core\.lora does not fit .* --train\.batch-size \(it is 16\)"
    ):
        run(registry, tmp_path / "run")


def test_absent_data_leave_no_folder(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"points\.bin"):
        run(registry, tmp_path / "run", data={"name": "points", "absent": True})
    assert not (tmp_path / "run").exists()


def test_targets_that_match_nothing_are_an_error(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(PeftxError, match="nowhere"):
        run(registry, tmp_path / "run", method={"name": "core.lora", "targets": ["nowhere"]})
    assert not (tmp_path / "run").exists()


def test_a_run_that_cannot_start_leaves_the_one_it_would_replace(registry: Registry, tmp_path: Path) -> None:
    folder = run(registry, tmp_path / "run", train={"epochs": 1}, baselines=[]).folder
    before = (folder / "record.json").read_bytes()
    with pytest.raises(PeftxError):
        run(registry, folder, method={"name": "core.lora", "targets": ["nowhere"]})
    assert (folder / "record.json").read_bytes() == before and (folder / "adapter").is_dir()


def test_listeners_hear_the_run(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(registry.events, "fire", lambda event, **values: heard.append((event, values)))
    monkeypatch.setattr(registry.events, "listened", lambda event: True)
    result = run(registry, tmp_path / "run", train={"epochs": 1}, baselines=[])
    events = [event for event, _ in heard]
    assert events == [
        "peftx_run_started",
        *["peftx_step"] * 6,
        *["peftx_evaluated"] * 3,
        "peftx_run_finished",
    ]
    assert heard[0][1]["run"].folder == result.folder and heard[0][1]["resumed"] is False
    assert heard[1][1]["step"] == 1 and heard[1][1]["metrics"].keys() == {"loss", "lr"}
    assert {values["row"] for _, values in heard[1:-1]} == {"core.lora"}
    assert [values["split"] for event, values in heard if event == "peftx_evaluated"] == [
        "val",
        "val",
        "test",
    ]
    assert heard[-2][1]["step"] == 6 and heard[-2][1]["metrics"]["n"] == 33
    assert heard[-1][1]["record"]["status"] == "complete"


def test_library_use_is_silent(registry: Registry, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(registry, tmp_path / "run", train={"epochs": 1})
    assert capfd.readouterr() == ("", "")


def test_progress_hears_the_stages(registry: Registry, tmp_path: Path) -> None:
    class Heard(Progress):
        def __init__(self) -> None:
            self.stages: list[str] = []

        def stage(self, text: str) -> None:
            self.stages.append(text)

    heard = Heard()
    run(registry, tmp_path / "run", heard, train={"epochs": 1}, baselines=["core.head"])
    assert heard.stages == ["loading toy.points", "training core.lora", "training core.head (baseline)"]
