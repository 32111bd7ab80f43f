"""The run folder: its name, what is refused, and writes that are whole or not there."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from peftx.errors import RunError
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


def test_a_new_or_empty_folder_is_taken(tmp_path: Path) -> None:
    assert files.create(tmp_path / "a" / "b", "m", "d").is_dir()
    assert files.create(tmp_path / "a" / "b", "m", "d") == tmp_path / "a" / "b"


def test_a_former_run_is_replaced_and_what_is_not_its_own_stays(tmp_path: Path) -> None:
    (tmp_path / files.CONFIG).write_text("")
    (tmp_path / files.METRICS).write_text("old")
    (tmp_path / files.ADAPTER).mkdir()
    (tmp_path / files.ADAPTER / "adapter.json").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    files.create(tmp_path, "m", "d")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_finished_run_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / files.CONFIG).write_text("")
    (tmp_path / files.RECORD).write_text('{"status": "complete"}')
    with pytest.raises(RunError, match="holds a finished run: name a new folder"):
        files.create(tmp_path, "m", "d")
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / files.RECORD).write_text('{"status": "training baselines"}')
    assert list(files.create(tmp_path, "m", "d").iterdir()) == []


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


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, {"a": 1})
    files.append_line(path, {"a": 2.5})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"a": 1}, {"a": 2.5}]
    with pytest.raises(RunError, match="cannot write"):
        files.append_line(tmp_path / "no" / "metrics.jsonl", {})
