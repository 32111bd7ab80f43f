"""Many processes on one index at once, and one that is killed while it writes."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from peftx.results import Index

Write = Callable[..., Path]

HAMMER = """
import json, os, shutil, sys
from pathlib import Path
from peftx.results import Index, register
root, number = Path(sys.argv[1]), int(sys.argv[2])
template = (root.parent / "template" / "record.json").read_text()
config = (root.parent / "template" / "config.toml").read_text()
sys.stdin.readline()  # all begin at once
seen = []
for turn in range(12):
    folder = root / f"p{number}-{turn}"
    folder.mkdir()
    (folder / "config.toml").write_text(config)
    (folder / ".new").write_text(template)
    os.replace(folder / ".new", folder / "record.json")
    register(folder, root)
    if turn % 3 == 2:
        shutil.rmtree(root / f"p{number}-{turn - 2}")
    with Index(root) as index:
        names = {Path(entry.folder).name for entry in index.entries()}
        assert folder.name in names, "a process sees its own runs"
        assert index.notes == [], index.notes
        # a folder that another process is removing may be caught half way
        assert all("p" in one.folder for one in index.skipped)
print("done")
"""


@pytest.mark.slow
def test_eight_processes_hammer_one_index(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "template")
    root = tmp_path / "runs"
    root.mkdir()
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", HAMMER, root, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        out, err = worker.communicate(timeout=240)
        assert out == "done\n", err
    expected = {f"p{number}-{turn}" for number in range(8) for turn in range(12) if turn not in (0, 3, 6, 9)}
    with Index(root) as index:
        assert {Path(entry.folder).name for entry in index.entries()} == expected
        assert len(index.entries()) == len(expected) and index.notes == [] and index.skipped == []
    with closing(sqlite3.connect(root / ".index.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


KILLED = """
import os, signal, sys
from pathlib import Path
from peftx.results import Index, store
real, count = store.insert, 0

def insert(connection, *arguments):
    global count
    if count == 0:
        connection.execute("PRAGMA cache_size = 1")  # pages go to the file before the transaction ends
    real(connection, *arguments)
    count += 1
    if count == 40:
        os.kill(os.getpid(), signal.SIGKILL)

store.insert = insert
Index(Path(sys.argv[1]))
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_a_killed_writer_leaves_a_sound_index(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "first")
    Index(tmp_path).close()
    for number in range(60):
        write_run(tmp_path / f"run{number:02d}", options={"rank": number + 1})
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], check=False, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / ".index.sqlite-journal").is_file(), "it died inside a transaction"
    with Index(tmp_path, refresh=False) as index:
        assert len(index.entries()) == 1, "nothing of the broken transaction is left"
    with Index(tmp_path) as index:
        assert len(index.entries()) == 61 and index.notes == []
    with closing(sqlite3.connect(tmp_path / ".index.sqlite")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


OPEN = """
import sys
from pathlib import Path
from peftx.results import Index
sys.stdin.readline()
with Index(Path(sys.argv[1])) as index:
    print(len(index.entries()))
"""


def test_several_processes_meet_a_damaged_index(tmp_path: Path, write_run: Write) -> None:
    for number in range(5):
        write_run(tmp_path / f"run{number}")
    (tmp_path / ".index.sqlite").write_bytes(b"this is no database" * 500)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        out, err = worker.communicate(timeout=60)
        assert out == "5\n", err
    with Index(tmp_path) as index:
        assert len(index.entries()) == 5 and index.notes == []
