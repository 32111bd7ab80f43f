"""The index follows the records: what is new, changed, gone or broken, and what is asked of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftx.errors import ConfigError, RunError
from peftx.results import Index, default_root, facts, register

Write = Callable[..., Path]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders whose record is read."""
    seen: list[Path] = []
    real = facts.read

    def read(folder: Path) -> facts.RunFacts:
        seen.append(folder)
        return real(folder)

    monkeypatch.setattr(facts, "read", read)
    return seen


def folders(root: Path) -> list[str]:
    with Index(root) as index:
        return [Path(entry.folder).name for entry in index.entries(sort=["run"])]


def test_a_run_is_read_once(tmp_path: Path, write_run: Write, reads: list[Path]) -> None:
    for name in "ab":
        write_run(tmp_path / name)
    assert folders(tmp_path) == ["a", "b"] and len(reads) == 2
    assert folders(tmp_path) == ["a", "b"] and len(reads) == 2


def test_what_changed_is_read_again_and_what_is_gone_forgotten(
    tmp_path: Path, write_run: Write, reads: list[Path]
) -> None:
    for name in "abc":
        write_run(tmp_path / name, status="training")
    folders(tmp_path)
    reads.clear()
    write_run(tmp_path / "b", test=42.0)
    shutil.rmtree(tmp_path / "c")
    write_run(tmp_path / "d")
    assert folders(tmp_path) == ["a", "b", "d"] and sorted(path.name for path in reads) == ["b", "d"]
    with Index(tmp_path) as index:
        assert [entry.score("test") for entry in index.entries(["run=b"])] == [42.0]
        assert [entry.status for entry in index.entries(["run=a"])] == ["training"]


def test_a_run_that_was_moved_has_its_new_name(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a")
    folders(tmp_path)
    (tmp_path / "a").rename(tmp_path / "z")
    assert folders(tmp_path) == ["z"]


def test_broken_runs_are_named_and_skipped(tmp_path: Path, write_run: Write) -> None:
    for name in ("good", "half", "later", "bare"):
        write_run(tmp_path / name)
    (tmp_path / "half" / "record.json").write_text('{"format": 1, "rows": [')
    (tmp_path / "later" / "record.json").write_text('{"format": 2}')
    (tmp_path / "bare" / "record.json").unlink()
    for _ in range(2):  # the second time from the index
        with Index(tmp_path) as index:
            assert [Path(entry.folder).name for entry in index.entries()] == ["good"]
            causes = {Path(one.folder).name: one.cause for one in index.skipped}
            assert causes.keys() == {"half", "later", "bare"}
            assert "is damaged" in causes["half"] and "later peftx" in causes["later"]
            assert "the run did not finish" in causes["bare"]


def test_a_run_that_breaks_leaves_the_index_and_comes_back(tmp_path: Path, write_run: Write) -> None:
    folder = write_run(tmp_path / "a")
    whole = (folder / "record.json").read_text()
    folders(tmp_path)
    (folder / "record.json").write_text(whole[:50])
    assert folders(tmp_path) == []
    (folder / "record.json").write_text(whole)
    assert folders(tmp_path) == ["a"]


def test_refresh_sees_what_came_after_opening(tmp_path: Path, write_run: Write) -> None:
    with Index(tmp_path) as index:
        write_run(tmp_path / "a")
        assert index.entries() == []
        index.refresh()
        assert len(index.entries()) == 1


def test_what_an_entry_says(tmp_path: Path, write_run: Write, make_row: Callable[..., Any]) -> None:
    own, baseline = make_row("core.dora", 98.0, val=97.0), make_row("core.head", 90.0, trainable=20)
    write_run(tmp_path / "a", own, baseline, seed=3, data={"name": "toy.small", "limit": 5})
    with Index(tmp_path) as index:
        first, second = index.entries()
    assert (first.folder, first.method, first.baseline, first.seed) == (
        str(tmp_path / "a"),
        "core.dora",
        False,
        3,
    )
    assert (first.score("test"), first.score("val"), first.score("train")) == (98.0, 97.0, None)
    assert first.setup["data"] == {"limit": 5} and first.settings["option"] == {"rank": 8}
    assert (second.method, second.baseline, second.trainable, second.saved_bytes) == (
        "core.head",
        True,
        20,
        2048,
    )
    assert first.units == {"accuracy": "%"} and first.device == "cpu" and first.fingerprint == "f00d"


def test_the_newest_run_is_first_and_a_limit_cuts(tmp_path: Path, write_run: Write) -> None:
    for day in (2, 3, 1):
        write_run(tmp_path / f"day{day}", started=f"2026-03-0{day}T00:00:00+00:00", test=90.0 + day)
    with Index(tmp_path) as index:
        assert [Path(e.folder).name for e in index.entries()] == ["day3", "day2", "day1"]
        assert [Path(e.folder).name for e in index.entries(limit=1)] == ["day3"]
        assert [e.score("test") for e in index.entries(sort=["test"])] == [91.0, 92.0, 93.0]
        assert [e.score("test") for e in index.entries(sort=["-test"], limit=2)] == [93.0, 92.0]
        with pytest.raises(ConfigError, match=r"--sort -tset: no run here has 'tset'. Did you mean test"):
            index.entries(sort=["-tset"])


def test_sorting_puts_what_has_no_value_last(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "a", options={"rank": 16})
    write_run(tmp_path / "b", options={"rank": 2})
    write_run(tmp_path / "c", method="core.full", status="failed", error="no")
    with Index(tmp_path) as index:
        for keys, expected in (
            (["option.rank"], "bac"),
            (["-option.rank"], "abc"),
            (["test", "-run"], "bac"),
        ):
            assert "".join(Path(e.folder).name for e in index.entries(sort=keys)) == expected


def test_some_folders_only(tmp_path: Path, write_run: Write) -> None:
    for name in ("bench/a/seed0", "bench/ab/seed0", "one"):
        write_run(tmp_path / name)
    with Index(tmp_path) as index:
        found = index.entries(folders=[tmp_path / "bench" / "a", tmp_path / "one"], limit=5)
        assert sorted(Path(e.folder).relative_to(tmp_path).as_posix() for e in found) == [
            "bench/a/seed0",
            "one",
        ]
        assert len(index.entries(folders=[tmp_path])) == 3
        many = [tmp_path / f"x{i}" for i in range(3000)]
        assert len(index.entries(folders=[*many, tmp_path / "one"])) == 1
        with pytest.raises(RunError, match="is not below"):
            index.entries(folders=[tmp_path.parent])


def test_names_are_as_one_would_type_them(
    tmp_path: Path, write_run: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "runs" / "a")
    monkeypatch.chdir(tmp_path)
    with Index(Path("runs")) as index:
        assert [entry.folder for entry in index.entries(folders=[tmp_path / "runs" / "a"])] == ["runs/a"]


def test_adding_one_run_walks_over_no_other(
    tmp_path: Path, write_run: Write, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peftx.results.index.scan", lambda *a: pytest.fail("walked"))
    write_run(tmp_path / "b")
    with Index(tmp_path, refresh=False) as index:
        index.add(write_run(tmp_path / "a"))
        assert [Path(entry.folder).name for entry in index.entries()] == ["a"] and len(reads) == 1
        with pytest.raises(RunError, match="is not below"):
            index.add(write_run(tmp_path.parent / "elsewhere"))
        with pytest.raises(RunError, match="no run folder at"):
            index.add(tmp_path / "gone")


def test_a_run_registers_itself_under_the_root_alone(
    tmp_path: Path, write_run: Write, monkeypatch: pytest.MonkeyPatch, reads: list[Path]
) -> None:
    monkeypatch.setenv("PEFTX_RUNS", str(tmp_path / "runs"))
    assert default_root() == tmp_path / "runs"
    register(write_run(tmp_path / "elsewhere" / "a"))
    assert not list(tmp_path.rglob(".index.sqlite"))
    register(write_run(tmp_path / "runs" / "a"))
    assert (tmp_path / "runs" / ".index.sqlite").is_file()
    reads.clear()
    assert folders(tmp_path / "runs") == ["a"] and reads == []
    (tmp_path / "runs" / "a" / "record.json").write_text("{")
    register(tmp_path / "runs" / "a")  # the run's own success does not depend on an index


def test_without_a_folder_of_runs_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PEFTX_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="the folder of runs runs is not there"):
        Index()
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match="is a file"):
        Index()


def test_folders_from_anywhere(tmp_path: Path, write_run: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x/a", "y/b", "z/c"):
        write_run(tmp_path / name)
    with Index.of([tmp_path / "x", tmp_path / "y" / "b"]) as index:
        assert {entry.folder for entry in index.entries()} == {str(tmp_path / "x/a"), str(tmp_path / "y/b")}
    monkeypatch.chdir(tmp_path)
    with Index.of([Path("x"), Path("y")]) as index:
        assert {entry.folder for entry in index.entries()} == {"x/a", "y/b"}
    assert not list(tmp_path.rglob(".index.sqlite"))
    with pytest.raises(RunError, match="no folder at"):
        Index.of([tmp_path / "gone"])


def test_rows_share_their_settings_and_unused_ones_go(tmp_path: Path, write_run: Write) -> None:
    for seed in range(5):
        write_run(tmp_path / f"a{seed}", seed=seed)
    write_run(tmp_path / "b", options={"rank": 77})
    with Index(tmp_path) as index:
        keys = index.keys()
        assert "option.rank" in keys
        assert index._do(lambda c: c.execute("SELECT count(*) FROM settings").fetchone()[0]) == 3
    shutil.rmtree(tmp_path / "b")
    with Index(tmp_path) as index:
        assert index._do(lambda c: c.execute("SELECT count(*) FROM settings").fetchone()[0]) == 2
        assert (
            index._do(lambda c: c.execute("SELECT count(*) FROM options WHERE text = '77'").fetchone()[0])
            == 0
        )


def test_text_that_is_no_utf8_harms_nobody(tmp_path: Path, write_run: Write) -> None:
    """Paths may hold any bytes; SQLite and terminals take text alone."""
    record = write_run(tmp_path / "a") / "record.json"
    found = json.loads(record.read_text())
    found["rows"][0]["options"]["file"] = "/x/\udcff.pt"
    record.write_text(json.dumps(found))
    write_run(tmp_path / "b\udcff")
    register(tmp_path / "b\udcff", tmp_path)
    with Index(tmp_path) as index:
        assert [entry.settings["option"]["file"] for entry in index.entries()] == ["/x/?.pt"]
        assert [one.cause for one in index.skipped] == ["the folder's name is not valid UTF-8: rename it"]


def test_a_run_written_while_it_is_read_is_read_again(
    tmp_path: Path, write_run: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_run(tmp_path / "a", test=1.0)
    real = facts.read

    def read(path: Path) -> facts.RunFacts:
        found = real(path)
        record = json.loads((folder / "record.json").read_text())
        record["rows"][0]["metrics"]["test"]["accuracy"] = 2.0
        copy = folder / "copy"
        copy.write_text(json.dumps(record))
        os.replace(copy, folder / "record.json")
        return found

    monkeypatch.setattr(facts, "read", read)
    with Index(tmp_path) as index:
        assert index.entries()[0].score("test") == 1.0
    monkeypatch.setattr(facts, "read", real)
    with Index(tmp_path) as index:
        assert index.entries()[0].score("test") == 2.0
