"""The SQLite file: empty, ours, old, new, damaged, somebody else's, or not to be written."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from peftx.errors import RunError
from peftx.results import Index, store

Write = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path, write_run: Write) -> Path:
    """A folder with two runs and an index of them."""
    for seed in (0, 1):
        write_run(tmp_path / "runs" / f"seed{seed}", seed=seed)
    with Index(tmp_path / "runs") as index:
        assert index.notes == [] and len(index.entries()) == 2
    return tmp_path / "runs"


def rows_of(root: Path) -> tuple[int, list[str]]:
    with Index(root) as index:
        return len(index.entries()), index.notes


def test_a_new_index_says_whose_it_is(root: Path) -> None:
    with closing(sqlite3.connect(root / ".index.sqlite")) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == store.FORMAT
        assert connection.execute("PRAGMA application_id").fetchone()[0] == store.APPLICATION
        assert connection.execute("PRAGMA journal_mode").fetchone()[0] == "delete"


@pytest.mark.parametrize("damage", ["text", "head", "middle", "cut", "empty"])
def test_a_damaged_file_is_built_anew(root: Path, damage: str) -> None:
    path = root / ".index.sqlite"
    content = path.read_bytes()
    half = len(content) // 2
    path.write_bytes(
        {
            "text": b"this is no database" * 300,
            "head": b"\0" * 100 + content[100:],
            "middle": content[:4096] + b"\xff" * (len(content) - 4096),
            "cut": content[: half - half % 4096 + 7],
            "empty": b"",
        }[damage]
    )
    count, notes = rows_of(root)
    assert count == 2
    if damage != "empty":
        assert len(notes) == 1 and notes[0].endswith("was damaged: the index was built anew from the runs")
    assert rows_of(root) == (2, [])


def test_another_programs_database_is_kept_under_another_name(root: Path) -> None:
    path = root / ".index.sqlite"
    path.unlink()
    (root / ".index.sqlite.foreign").write_text("an earlier one")
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
        other.execute("INSERT INTO recipes VALUES ('soup')")
        other.commit()
    count, notes = rows_of(root)
    assert count == 2 and "was no index of runs: it is .index.sqlite.foreign1 now" in notes[0]
    with closing(sqlite3.connect(root / ".index.sqlite.foreign1")) as kept:
        assert kept.execute("SELECT name FROM recipes").fetchall() == [("soup",)]
    assert (root / ".index.sqlite.foreign").read_text() == "an earlier one"


@pytest.mark.parametrize(
    "change", ["PRAGMA user_version = 0", "DROP TABLE metrics", "CREATE TABLE extra (x)"]
)
def test_an_earlier_layout_is_rebuilt_without_a_word(root: Path, change: str) -> None:
    with closing(sqlite3.connect(root / ".index.sqlite")) as connection:
        connection.execute(change)
        connection.commit()
    assert rows_of(root) == (2, [])
    with Index(root) as index:
        assert len(index.entries(["test.accuracy>0"])) == 2


def test_a_later_version_is_left_alone_unless_asked(root: Path) -> None:
    path = root / ".index.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(
        RunError, match=rf"was written by a later peftx \(index format 99, this one reads {store.FORMAT}\)"
    ) as caught:
        Index(root)
    assert f"peftx results --rebuild --root {root}" in str(caught.value)
    assert path.read_bytes() == before
    with Index(root, rebuild=True) as index:
        assert len(index.entries()) == 2 and index.notes == []
    assert rows_of(root) == (2, [])


def test_an_index_that_cannot_be_opened_is_kept_in_memory(root: Path) -> None:
    path = root / ".index.sqlite"
    path.unlink()
    path.mkdir()
    count, notes = rows_of(root)
    assert count == 2 and "this index is kept in memory" in notes[0]


def test_a_lock_that_is_not_let_go_does_not_stop_a_reader(
    root: Path, write_run: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE", 0.05)
    with closing(sqlite3.connect(root / ".index.sqlite", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        write_run(root / "seed2", seed=2)
        count, notes = rows_of(root)
        assert count == 3 and "database is locked" in notes[0] and "kept in memory" in notes[0]
    assert rows_of(root) == (3, [])


def test_memory_leaves_no_trace(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "one")
    with Index(tmp_path, memory=True) as index:
        assert len(index.entries()) == 1 and index.notes == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


def test_a_run_of_its_own_gets_no_index_inside(tmp_path: Path, write_run: Write) -> None:
    folder = write_run(tmp_path / "one")
    with Index(folder) as index:
        assert [entry.folder for entry in index.entries()] == [str(folder)]
    assert not (folder / ".index.sqlite").exists()


READ_ONLY = """
import os, sys
from pathlib import Path
from peftx.results import Index
if os.geteuid() == 0:
    os.setuid(65534)  # root may write everywhere
with Index(Path(sys.argv[1])) as index:
    print(len(index.entries()), index.notes)
"""


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize("with_file", [True, False])
def test_a_folder_without_write_permission(root: Path, write_run: Write, with_file: bool) -> None:
    if not with_file:
        (root / ".index.sqlite").unlink()
    write_run(root / "seed2", seed=2)
    for path in [*root.rglob("*"), root]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    # pytest's own folders are closed to other users
    above = {path: path.stat().st_mode for path in root.parents if path.stat().st_mode & 0o005 != 0o005}
    try:
        for path, mode in above.items():
            path.chmod(mode | 0o055)
        done = subprocess.run(
            [sys.executable, "-c", READ_ONLY, root], capture_output=True, text=True, check=False
        )
    finally:
        for path, mode in above.items():
            path.chmod(mode)
        root.chmod(0o755)
        for path in root.iterdir():
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 ['") and "kept in memory" in done.stdout
