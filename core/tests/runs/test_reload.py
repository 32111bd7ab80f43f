"""A run folder later: the same score to the last bit, and predictions on new files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from peftx.config.run import RunConfig
from peftx.errors import ArtifactError, DataError, RunError, UserError
from peftx.plugins.registry import Registry
from peftx.runs import evaluate, execute, predict


@pytest.fixture(params=["core.lora", "core.head", "core.full"])
def folder(request: pytest.FixtureRequest, registry: Registry, tmp_path: Path) -> Path:
    options = {"targets": ["glob:*fc1"]} if request.param == "core.lora" else {}
    config = RunConfig.model_validate(
        {
            "task": "toy",
            "method": {"name": request.param, **options},
            "data": {"name": "points", "spread": 3.0},
            "train": {"epochs": 4, "eval_batch_size": 7},
            "out": tmp_path / "run",
            "device": "cpu",
            "baselines": [],
            "efficiency": False,
            "report": False,
        }
    )
    return execute(config, registry).folder


def edit(folder: Path, **values: object) -> None:
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps(record | values))


def test_the_score_is_reproduced_exactly(folder: Path, registry: Registry) -> None:
    again = evaluate(folder, registry)
    assert again.exact and again.measured == again.recorded
    assert again.measured.keys() == {"val", "test"}
    assert "exactly" in again.summary()


def test_full_tuning_of_a_network_with_batch_norm_is_reproduced(registry: Registry, tmp_path: Path) -> None:
    config = RunConfig.model_validate(
        {
            "task": "toy",
            "method": "core.full",
            "model": {"name": "net", "batch_norm": True},
            "out": tmp_path / "run",
            "device": "cpu",
            "baselines": [],
            "efficiency": False,
            "report": False,
        }
    )
    assert evaluate(execute(config, registry).folder, registry).exact


def test_a_changed_adapter_is_noticed(folder: Path, registry: Registry) -> None:
    path = folder / "adapter" / "adapter.safetensors"
    tensors = load_file(path)
    name = next(key for key in tensors if tensors[key].ndim == 2)
    tensors[name] = tensors[name] + 0.25
    save_file(tensors, path)
    try:
        again = evaluate(folder, registry)
    except ArtifactError:
        return  # the artifact's own checksum may speak first
    assert not again.exact and "NOT reproduced" in again.summary()


def test_a_changed_figure_in_the_record_is_noticed(folder: Path, registry: Registry) -> None:
    record = json.loads((folder / "record.json").read_text())
    record["rows"][0]["metrics"]["test"]["loss"] += 1e-12
    edit(folder, rows=record["rows"])
    again = evaluate(folder, registry)
    assert [(split, name) for split, name, _, _ in again.differences()] == [("test", "loss")]


def test_metrics_that_a_later_release_adds_are_no_difference(folder: Path, registry: Registry) -> None:
    record = json.loads((folder / "record.json").read_text())
    for values in record["rows"][0]["metrics"].values():
        del values["ece"], values["brier"]
    (folder / "record.json").write_text(json.dumps(record))
    again = evaluate(folder, registry)
    assert again.exact and again.differences() == []
    assert "ece" in again.measured["test"]


def test_other_versions_are_named_when_the_score_differs(folder: Path, registry: Registry) -> None:
    record = json.loads((folder / "record.json").read_text())
    record["rows"][0]["metrics"]["test"]["loss"] = 0.0
    edit(folder, rows=record["rows"], versions=record["versions"] | {"torch": "1.0"})
    assert "torch was 1.0, is" in evaluate(folder, registry).summary()


def test_other_data_are_refused(folder: Path, registry: Registry) -> None:
    record = json.loads((folder / "record.json").read_text())
    edit(folder, data=record["data"] | {"fingerprint": "0" * 64})
    with pytest.raises(DataError, match=r"toy\.points is not the data of this run"):
        evaluate(folder, registry)


def test_prediction_needs_no_data(folder: Path, registry: Registry, tmp_path: Path) -> None:
    text = (folder / "config.toml").read_text().replace("absent = false", "absent = true")
    (folder / "config.toml").write_text(text)
    point = tmp_path / "point.txt"
    point.write_text("1 2 3 4 5 6 7 8")
    found = predict(folder, [point], registry=registry)
    assert found[0]["path"] == str(point) and found[0]["class"] in {"c0", "c1", "c2"}
    with pytest.raises(DataError, match=r"missing\.txt"):
        predict(folder, [tmp_path / "missing.txt"], registry=registry)


def test_a_folder_of_files_is_predicted_in_order(
    folder: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = tmp_path / "points"
    for name in ("b.txt", "a.TXT", "deep/c.txt", ".hidden/d.txt", "notes.md"):
        (points / name).parent.mkdir(parents=True, exist_ok=True)
        (points / name).write_text("1 2 3 4 5 6 7 8")
    with pytest.raises(DataError, match="takes no folders"):
        predict(folder, [points], registry=registry)
    task = registry.tasks["toy.sorting"].load()
    monkeypatch.setattr(task, "suffixes", (".txt",))
    found = [
        Path(one["path"]).relative_to(points).as_posix()
        for one in predict(folder, [points], registry=registry)
    ]
    assert found == ["a.TXT", "b.txt", "deep/c.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty has no file that ends in \.txt"):
        predict(folder, [tmp_path / "empty"], registry=registry)


def test_an_unfinished_run_is_refused(folder: Path, registry: Registry) -> None:
    (folder / "adapter").rename(folder / "elsewhere")
    with pytest.raises(RunError, match="did not finish"):
        evaluate(folder, registry)


def test_a_configuration_of_another_version_is_refused(folder: Path, registry: Registry) -> None:
    path = folder / "config.toml"
    path.write_text("warp_speed = 9\n" + path.read_text())
    with pytest.raises(RunError, match=r"config\.toml does not fit this version.*warp"):
        evaluate(folder, registry)


def test_explaining_needs_an_empty_folder_and_a_task_that_can(
    folder: Path, registry: Registry, tmp_path: Path
) -> None:
    point = tmp_path / "point.txt"
    point.write_text("0 0 0 0 0 0 0 0")
    with pytest.raises(DataError, match=r"is not empty: name a new or an empty folder"):
        predict(folder, [point], registry=registry, explain=folder)
    with pytest.raises(DataError, match="cannot be a folder of pictures"):
        predict(folder, [point], registry=registry, explain=point)
    with pytest.raises(UserError, match="Sorting cannot show where an answer comes from") as caught:
        predict(folder, [point], registry=registry, explain=tmp_path / "why")
    assert "\n" not in str(caught.value)
