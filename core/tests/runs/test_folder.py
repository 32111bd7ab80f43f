"""The run folder: its name, what is refused, and writes that are whole or not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from peftx.errors import BusyError, RunError
from peftx.runs import folder as files

NOW = datetime(2026, 3, 1, 10, 15)


def test_the_default_name_says_when_what_and_on_which_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = files.create(None, "core.lora", "vision.imagefolder:/a b/ü", NOW)
    second = files.create(None, "core.lora", "vision.imagefolder:/a b/ü", NOW)
    assert first == Path("runs/20260301-101500-core.lora-vision.imagefolder")
    assert second.name == first.name + "-2"
    assert first.is_dir() and second.is_dir()


def test_the_folder_of_runs_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PEFTX_RUNS", raising=False)
    assert files.home() == Path("runs")
    monkeypatch.setenv("PEFTX_RUNS", str(tmp_path / "mine"))
    assert files.create(None, "core.lora", "vision.digits", NOW).parent == tmp_path / "mine"


def test_a_new_or_empty_folder_is_taken(tmp_path: Path) -> None:
    assert files.create(tmp_path / "a" / "b", "m", "d").is_dir()
    assert files.create(tmp_path / "a" / "b", "m", "d") == tmp_path / "a" / "b"


def test_a_run_that_trained_nothing_is_replaced_and_what_is_not_its_own_stays(tmp_path: Path) -> None:
    for name in (files.CONFIG, files.METRICS, files.DETAILS, files.REPORT, ".record.json.7.tmp"):
        (tmp_path / name).write_text("old")
    (tmp_path / files.RECORD).write_text('{"status": "failed"}')
    (tmp_path / "notes.txt").write_text("mine")
    assert files.create(tmp_path, "m", "d") == tmp_path
    files.clear(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", ".record.json.7.tmp"}


@pytest.mark.parametrize("record", [None, "{", "[]", '{"status": "shipped"}'])
def test_a_configuration_alone_is_somebody_elses(tmp_path: Path, record: str | None) -> None:
    (tmp_path / files.CONFIG).write_text("[project]")
    (tmp_path / "tensorboard").mkdir()
    if record is not None:
        (tmp_path / files.RECORD).write_text(record)
    with pytest.raises(RunError, match="not empty and not a run"):
        files.create(tmp_path, "m", "d")
    with pytest.raises(RunError, match="not empty and not a run"):
        files.clear(tmp_path)
    assert (tmp_path / files.CONFIG).read_text() == "[project]" and (tmp_path / "tensorboard").is_dir()


def test_a_run_that_finishes_meanwhile_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / files.CONFIG).write_text("")
    (tmp_path / files.RECORD).write_text('{"status": "training"}')
    folder = files.create(tmp_path, "m", "d")
    (tmp_path / files.RECORD).write_text('{"status": "complete"}')
    with pytest.raises(RunError, match="holds a finished run"), files.locked(folder):
        files.clear(folder)
    assert files.state_of(tmp_path) == "complete"


def test_litter_of_a_killed_writer_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".record.json.7.tmp").write_text("{")
    assert files.create(tmp_path, "m", "d") == tmp_path


def test_a_finished_run_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / files.CONFIG).write_text("")
    (tmp_path / files.RECORD).write_text('{"status": "complete"}')
    with pytest.raises(RunError, match="holds a finished run: name a new folder"):
        files.create(tmp_path, "m", "d")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("held", [files.CHECKPOINT, files.ADAPTER])
def test_what_was_trained_is_not_thrown_away(tmp_path: Path, held: str) -> None:
    (tmp_path / files.CONFIG).write_text("")
    (tmp_path / files.RECORD).write_text('{"status": "interrupted"}')
    (tmp_path / held).mkdir()
    with pytest.raises(RunError, match=r"did not finish: go on with `peftx run --resume"):
        files.create(tmp_path, "m", "d")
    assert (tmp_path / held).is_dir()


def test_a_run_that_was_killed_before_its_configuration_stood_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / files.RECORD).write_text('{"status": "training"}')
    (tmp_path / files.LOCK).write_text("")
    assert not files.is_run(tmp_path)
    assert files.create(tmp_path, "m", "d") == tmp_path


def test_one_process_at_a_time(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from peftx.runs import folder\n"
        "with folder.locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match=f"another process is at work on {tmp_path}"), files.locked(tmp_path):
        pass
    other.kill()
    other.wait()
    with files.locked(tmp_path):  # a killed process holds nothing
        pass


def test_too_little_space_is_said_before_training(tmp_path: Path) -> None:
    files.check_space(tmp_path, 1)
    with pytest.raises(RunError, match=r"MiB free, and this run needs about 1,073,741,824 MiB .* --out"):
        files.check_space(tmp_path, 2**50)


def test_a_folder_that_is_not_a_run_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="not empty and not a run"):
        files.create(tmp_path, "m", "d")
    assert (tmp_path / "thesis.tex").read_text() == "x"


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(RunError, match="is a file"):
        files.create(tmp_path / "x", "m", "d")
    with pytest.raises(RunError, match="cannot create"):
        files.create(tmp_path / "x" / "y", "m", "d")


def test_a_failed_write_leaves_the_old_content_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    files.write_text(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write .*record.json: No space left on device"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_text_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    """A path whose bytes are no UTF-8 comes as such text, and TOML cannot hold it."""
    with pytest.raises(RunError, match=r"cannot write .*config\.toml: '\\udcff' in it is not UTF-8"):
        files.write_text(tmp_path / "config.toml", "path = '/x/\udcff'")
    assert not list(tmp_path.iterdir())


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, {"a": 1})
    files.append_line(path, {"a": 2.5})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"a": 2.5}]
    with pytest.raises(RunError, match="cannot write"):
        files.append_line(tmp_path / "no" / "metrics.jsonl", {})


def test_a_line_is_appended_whole_or_not_at_all(tmp_path: Path) -> None:
    """Under a limit on the file's size, which is what a full disk looks like to a writer."""
    program = (
        "import pathlib, resource, sys; from peftx.runs import folder; from peftx.errors import BusyError, RunError\n"
        "path = pathlib.Path(sys.argv[1]); folder.append_line(path, {'first': 'x' * 50})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "try:\n    folder.append_line(path, {'second': 'y' * 200})\nexcept RunError as error:\n    print(error)"
    )
    path = tmp_path / "metrics.jsonl"
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert json.loads(path.read_text()) == {"first": "x" * 50}


def test_lines_after_a_checkpoint_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.cut(path, 0)  # nothing was logged yet
    files.append_line(path, {"a": 1})
    size = path.stat().st_size
    files.append_line(path, {"a": 2})
    files.cut(path, size)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}]
    with pytest.raises(RunError, match="shorter than its checkpoint says"):
        files.cut(path, size + 1)
