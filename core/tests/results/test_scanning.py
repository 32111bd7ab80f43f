"""The walk over a folder of runs: what is a run, what is not entered, and links that lead in circles."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from peftx.results.scanning import scan, stamp_of


def test_runs_at_every_depth_and_nothing_inside_one(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "bench" / "digits" / "core.lora" / "seed0")
    write_run(tmp_path / "one" / "adapter" / "looks-like-a-run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    found = scan(tmp_path)
    assert sorted(found.runs) == ["bench/digits/core.lora/seed0", "one"] and found.skipped == []


def test_a_run_itself_is_called_by_a_dot(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    assert list(scan(write_run(tmp_path / "one")).runs) == ["."]


def test_either_file_makes_a_run(tmp_path: Path) -> None:
    for name in ("record.json", "config.toml"):
        (tmp_path / name[:6]).mkdir()
        (tmp_path / name[:6] / name).write_text("")
    assert sorted(scan(tmp_path).runs) == ["config", "record"]


def test_hidden_folders_are_left_out(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    write_run(tmp_path / ".venv" / "one")
    assert scan(tmp_path).runs == {}


def test_links_are_followed_but_not_in_circles(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    root, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    write_run(root / "z-real")
    write_run(elsewhere / "far")
    (root / "a-link").symlink_to(root / "z-real")
    (root / "loop").symlink_to(root)
    (elsewhere / "back").symlink_to(root)
    (root / "out").symlink_to(elsewhere)
    (root / "broken").symlink_to(root / "gone")
    assert sorted(scan(root).runs) == ["out/far", "z-real"], "once each, under the name that is no link"


def test_the_stamp_changes_with_either_file(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    folder = write_run(tmp_path / "one")
    stamps = {stamp_of(folder)}
    for name in ("record.json", "config.toml"):
        path = folder / name
        text, status = path.read_bytes(), path.stat()
        copy = folder / "copy"
        copy.write_bytes(text)
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(copy, path)  # same time, same size: still another file
        stamps.add(stamp_of(folder))
    assert len(stamps) == 3
    (folder / "record.json").unlink()
    assert stamp_of(folder) not in stamps


@pytest.mark.skipif(os.name == "nt", reason="file names are text there")
def test_a_name_that_is_no_text_is_skipped(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    folder = write_run(tmp_path / "one")
    os.rename(folder, os.fsencode(tmp_path) + b"/bad\xff")
    found = scan(tmp_path)
    assert found.runs == {} and "not valid UTF-8" in found.skipped[0].cause
    found.skipped[0].folder.encode()


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "one")
    (tmp_path / "locked").mkdir()
    ask = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return ask(path)

    monkeypatch.setattr("peftx.results.scanning.os.scandir", scandir)
    found = scan(tmp_path)
    assert list(found.runs) == ["one"]
    assert [(one.folder, one.cause) for one in found.skipped] == [
        ("locked", "cannot be read: Permission denied")
    ]


def test_only_below_some_folders(tmp_path: Path, write_run: Callable[..., Path]) -> None:
    for name in ("a/one", "b/two", "c/three"):
        write_run(tmp_path / name)
    assert sorted(scan(tmp_path, [tmp_path / "a", tmp_path / "c", tmp_path / "a"]).runs) == [
        "a/one",
        "c/three",
    ]
