from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import peftx.runs
from peftx.cli.commands.eval import rows
from peftx.cli.commands.predict import as_table


@dataclass
class _Found:
    folder: Path
    exact: bool
    recorded: dict = field(default_factory=lambda: {"test": {"accuracy": 97.5}})
    measured: dict = field(default_factory=lambda: {"test": {"accuracy": 97.5}})
    changed: tuple = ("torch was 1, is 2",)

    def summary(self):
        return "as before" if self.exact else "NOT as before"


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.toml").write_text("")
    return folder


@pytest.mark.parametrize(("exact", "expected"), [(True, 0), (False, 1)])
def test_eval_prints_both_scores_and_its_status_says_whether_they_agree(
    peftx, run_folder, monkeypatch, exact, expected
):
    monkeypatch.setattr(
        peftx_runs(), "evaluate", lambda folder, *a, **k: _Found(folder, exact), raising=False
    )
    status, out, _ = peftx("eval", run_folder)
    assert status == expected and "97.5" in out and out.endswith("as before\n")
    status, out, _ = peftx("eval", run_folder, "--json")
    assert status == expected and json.loads(out)["exact"] is exact


def test_equal_scores_are_short_and_different_ones_exact():
    recorded = {"val": {"accuracy": 93.03621169916434, "loss": 0.25, "n": 1359}}
    measured = {"val": {"accuracy": 93.03621169916434, "loss": 0.2500000000000001, "n": 1359}}
    found = [(row["metric"], row["recorded"], row["measured"]) for row in rows(recorded, measured)]
    assert found == [
        ("accuracy", "93.0362", "93.0362"),
        ("loss", 0.25, 0.2500000000000001),
        ("n", "1,359", "1,359"),
    ]


def test_what_is_no_run_is_refused_before_torch(peftx, tmp_path, monkeypatch):
    monkeypatch.setattr(peftx_runs(), "evaluate", lambda *a, **k: pytest.fail("reached"), raising=False)
    (tmp_path / "empty").mkdir()
    assert peftx("eval", tmp_path / "gone") == (2, "", f"error: no run folder at {tmp_path / 'gone'}\n")
    status, _, err = peftx("eval", tmp_path / "empty")
    assert status == 2 and "is not the folder of a run" in err
    assert peftx("predict", tmp_path / "empty", "x.png")[0] == 2
    (tmp_path / "empty" / "adapter.json").write_text("{}")
    _, _, err = peftx("eval", tmp_path / "empty")
    assert "it holds an adapter, which peftx.artifacts.load(model, folder) reads" in err


def test_predict_prints_one_row_per_answer(peftx, run_folder, tmp_path, monkeypatch):
    answers = [
        {
            "file": "a.png",
            "top": [{"class": "cat", "probability": 0.75}, {"class": "dog", "probability": 0.25}],
        },
        {"file": "b.png", "value": 1.5},
    ]
    seen = {}

    def predict(folder, paths, top, registry, device=None, explain=None, options=None):
        seen.update(paths=paths, top=top, explain=explain, options=options)
        return answers

    monkeypatch.setattr(peftx_runs(), "predict", predict, raising=False)
    (tmp_path / "a.png").write_text("")
    status, out, _ = peftx("predict", run_folder, tmp_path / "a.png", "--top", "2")
    assert status == 0 and seen["paths"] == (tmp_path / "a.png",)
    assert (seen["top"], seen["explain"], seen["options"]) == (2, None, {})
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["file", "class", "probability", "value"]
    assert lines[2:] == [
        ["a.png", "cat", "0.7500", "-"],
        ["a.png", "dog", "0.2500", "-"],
        ["b.png", "-", "-", "1.5000"],
    ]
    assert json.loads(peftx("predict", run_folder, tmp_path / "a.png", "--json")[1]) == answers
    assert peftx("predict", run_folder, tmp_path / "a.png", "--csv")[1].splitlines() == [
        "file,class,probability,value",
        "a.png,cat,0.75,",
        "a.png,dog,0.25,",
        "b.png,,,1.5",
    ]
    status, _, err = peftx("predict", run_folder, tmp_path / "a.png", "--csv", "--json")
    assert status == 2 and "choose one" in err


def test_predict_names_files_that_are_not_there(peftx, run_folder):
    status, _, err = peftx("predict", run_folder, "one.png", "two.png")
    assert (status, err) == (2, "error: no such file: one.png, two.png\n")
    assert peftx("predict", run_folder)[0] == 2
    assert "0 is not in the range" in peftx("predict", run_folder, "x", "--top", "0")[2]


def test_a_prediction_without_answers_is_one_row():
    assert as_table([{"file": "a", "text": "hello"}]).render().splitlines()[-1].split() == ["a", "hello"]


def peftx_runs():
    return peftx.runs
