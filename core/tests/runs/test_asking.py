"""Options of `peftx predict` that a task brings: in Python and on the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from peftx.cli.main import main
from peftx.config.run import RunConfig
from peftx.errors import ConfigError
from peftx.plugins.registry import Registry
from peftx.runs import execute, predict


@pytest.fixture
def folder(registry: Registry, tmp_path: Path) -> Path:
    config = {"task": "toy", "out": tmp_path / "run", "device": "cpu", "baselines": [], "efficiency": False}
    return execute(RunConfig.model_validate(config | {"report": False}), registry).folder


@pytest.fixture
def point(tmp_path: Path) -> Path:
    path = tmp_path / "point.txt"
    path.write_text("1;2;3;4;5;6;7;8")
    return path


def test_options_reach_the_task(folder: Path, registry: Registry, point: Path) -> None:
    options = {"data.separator": ";", "runners_up": True, "scale": "2"}
    (found,) = predict(folder, [point], registry=registry, options=options)
    assert sorted(one["class"] for one in found["answers"]) == ["c0", "c1", "c2"]
    with pytest.raises(ConfigError, match=r"--scale: must be greater than 0 \(got -1.0\)"):
        predict(folder, [point], registry=registry, options={"scale": "-1.0"})
    with pytest.raises(ConfigError, match=r"--scael: no such option\. Did you mean --scale\?"):
        predict(folder, [point], registry=registry, options={"scael": 1})


def test_the_command_takes_them_wherever_they_stand(
    folder: Path, point: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", "--data.separator", ";", str(folder), "--runners-up", str(point), "--csv"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert [row["class"] for row in csv.DictReader(io.StringIO(out))] and err == "all classes\n"
    written = tmp_path / "answers.json"
    assert main([*arguments[:-1], "--out", str(written)]) == 0
    assert capsys.readouterr().out == f"3 rows written to {written}\n"
    assert len(json.loads(written.read_text())[0]["answers"]) == 3
    for given, words in (
        (["--out", str(written)], f"--out {written} is there already: name another file"),
        (["--out", str(tmp_path / "no" / "x.csv")], f"there is no folder {tmp_path / 'no'}"),
        (["--csv", "--json"], "--csv, --json and --out: choose one"),
        (["--scale", "much"], "--scale: must be a number"),
        (["--horizon", "3"], "No such option"),
    ):
        assert main(["predict", str(folder), str(point), *given]) == 2
        assert words in capsys.readouterr().err
    assert main(["predict", str(tmp_path / "gone"), str(point), "--scale", "3"]) == 2
    assert capsys.readouterr().err == f"error: no run folder at {tmp_path / 'gone'}\n"


def test_the_help_of_a_run_has_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(folder), "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "--scale FLOAT multiply the point by this [> 0; default 1.0]" in shown
    assert "--data.separator TEXT what stands between two numbers" in shown
    assert main(["predict", "--help"]) == 0
    assert "--scale" not in capsys.readouterr().out
