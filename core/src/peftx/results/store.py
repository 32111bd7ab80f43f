"""The SQLite file behind the index: its tables, its version, and what happens when it is not what it should be.

Nothing in it is of value: everything can be read again from the records. So a file that is damaged, or not ours, is
replaced with a note, and where nothing can be written the index lives in memory. Only a file of a later version is
left alone, because the peftx that wrote it wants it back.

The rollback journal is the ordinary one: a write-ahead log needs shared memory, which network file systems lack, and
cannot be read from a folder without write permission.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from peftx.errors import RunError
from peftx.results.facts import RowFacts, RunFacts, canonical

__all__ = ["FORMAT", "NAME", "connect", "forget", "in_memory", "insert", "is_damage", "replace", "writing"]

NAME = ".index.sqlite"

#: Raised whenever the tables change; an older file is rebuilt.
FORMAT = 5

#: "pefx": says that a SQLite file is ours.
APPLICATION = 0x70656678

#: Seconds to wait for other writers. A transaction holds at most a few hundred runs and takes milliseconds.
PATIENCE = 20.0

_TABLES = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, folder TEXT NOT NULL UNIQUE, stamp TEXT NOT NULL, started TEXT, status TEXT, error TEXT,
    task TEXT, method TEXT, data TEXT, model TEXT, primary_metric TEXT, higher_is_better INTEGER, unit TEXT,
    units TEXT, seed INTEGER, precision TEXT, device TEXT, hardware TEXT, tested INTEGER, has_test INTEGER,
    fingerprint TEXT, weights TEXT, setup TEXT, selects TEXT, selects_higher_is_better INTEGER
);
CREATE TABLE rows (
    id INTEGER PRIMARY KEY, run INTEGER NOT NULL REFERENCES runs(id) ON DELETE CASCADE, position INTEGER, method TEXT,
    baseline INTEGER, state TEXT, error TEXT, settings TEXT, scores TEXT, looks TEXT, trainable INTEGER,
    stored_bytes INTEGER, resident_bytes INTEGER, peak_memory_bytes INTEGER, peak_memory_how TEXT,
    saved_bytes INTEGER, seconds REAL, steps INTEGER, epochs INTEGER, best_epoch INTEGER
);
CREATE INDEX rows_of_run ON rows(run);
CREATE TABLE metrics (
    row INTEGER NOT NULL REFERENCES rows(id) ON DELETE CASCADE, split TEXT, name TEXT, value REAL,
    PRIMARY KEY (row, split, name)
) WITHOUT ROWID;
CREATE TABLE settings (key TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE options (
    settings TEXT NOT NULL REFERENCES settings(key) ON DELETE CASCADE, section TEXT, name TEXT, text TEXT, number REAL,
    PRIMARY KEY (settings, section, name)
) WITHOUT ROWID;
"""

_NAMES = set(re.findall(r"CREATE TABLE (\w+)", _TABLES))
_RUN = tuple(
    "started status error task method data model unit seed precision device hardware fingerprint weights".split()
)
_ROW = tuple(
    "method baseline state error trainable stored_bytes resident_bytes peak_memory_bytes peak_memory_how saved_bytes "
    "seconds steps epochs best_epoch".split()
)


class _Foreign(sqlite3.DatabaseError):
    """A sound database that is not ours."""


def connect(path: Path, *, rebuild: bool = False) -> sqlite3.Connection:
    """Open the index at `path`, with empty tables where there were none, or older ones, or where `rebuild` asks for it.

    Raises:
        RunError: a later peftx wrote it.
        sqlite3.DatabaseError: it cannot be opened, is damaged (`is_damage`), or is somebody else's.
    """
    connection = _prepared(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None))
    try:
        state = _state(connection)
        if state == "foreign":
            raise _Foreign(f"{path} is another program's database")
        if state == "later" and not rebuild:
            raise RunError(
                f"{path} was written by a later peftx (index format {_version(connection)}, this one reads {FORMAT}): "
                f"rebuild it with `peftx results --rebuild --root {path.parent}`"
            )
        if rebuild or state != "ours":
            with writing(connection):
                if rebuild or _state(connection) != "ours":  # another process may have been quicker
                    _create(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def in_memory(path: Path | None = None) -> sqlite3.Connection:
    """An index that is gone with the process; it begins as a copy of the one at `path`, if that can be read."""
    connection = _prepared(sqlite3.connect(":memory:", isolation_level=None))
    if path is not None and path.is_file():
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(
                sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
            ) as source,
        ):
            if _state(source) == "ours":
                source.backup(connection)
    if _state(connection) != "ours":
        with writing(connection):
            _create(connection)
    return connection


def replace(path: Path) -> str:
    """Make room for a new index where `connect` or a query met damage, and say what was done with the former file.

    A damaged one is removed; a sound one that is not ours is kept under another name.

    Raises:
        RunError: meanwhile a later peftx wrote one.
        OSError: the folder cannot be written.
    """
    try:
        with contextlib.closing(connect(path)) as connection:
            if connection.execute("PRAGMA integrity_check(1)").fetchone()[0] == "ok":
                return f"{path} was damaged: another process built it anew"
    except _Foreign:
        names = (f"{path.name}.foreign{number or ''}" for number in range(1000))
        aside = next(aside for name in names if not (aside := path.with_name(name)).exists())
        os.replace(path, aside)
        return f"{path} was no index of runs: it is {aside.name} now, and the index was built anew"
    except sqlite3.Error:
        pass
    for file in (path, path.with_name(f"{path.name}-journal")):
        file.unlink(missing_ok=True)
    return f"{path} was damaged: the index was built anew from the runs"


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file itself is at fault, and not the disk, a lock or a permission."""
    code = getattr(error, "sqlite_errorcode", None)
    damaged = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
    return isinstance(error, _Foreign) or (code is not None and code & 0xFF in damaged)


@contextlib.contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that holds the write lock from its start, so that it cannot fail half way for want of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def insert(connection: sqlite3.Connection, folder: str, stamp: str, run: RunFacts) -> None:
    """Put a run in the index, in place of what stood there under its folder. Inside `writing`."""
    connection.execute("DELETE FROM runs WHERE folder = ?", (folder,))
    setup = _settings(connection, run.setup)
    values = {name: getattr(run, name) for name in _RUN} | {
        "folder": folder,
        "stamp": stamp,
        "primary_metric": run.primary,
        "higher_is_better": int(run.higher_is_better),
        "selects": run.selects,
        "selects_higher_is_better": int(run.selects_higher_is_better),
        "units": json.dumps(dict(run.units)),
        "tested": int(run.tested),
        "has_test": int(run.has_test),
        "setup": setup,
    }
    number = _insert(connection, "runs", values)
    for position, row in enumerate(run.rows):
        _insert_row(connection, number, position, row)


def forget(connection: sqlite3.Connection, folders: Iterable[str]) -> None:
    """Take runs out of the index, and the settings that no other run has. Inside `writing`."""
    connection.executemany("DELETE FROM runs WHERE folder = ?", [(folder,) for folder in folders])
    connection.execute(
        "DELETE FROM settings WHERE key NOT IN (SELECT settings FROM rows UNION SELECT setup FROM runs)"
    )


def _insert_row(connection: sqlite3.Connection, run: int, position: int, row: RowFacts) -> None:
    values = {name: getattr(row, name) for name in _ROW} | {
        "run": run,
        "position": position,
        "settings": _settings(connection, row.settings),
        "scores": json.dumps(row.metrics),
        "looks": json.dumps(row.looks),
    }
    number = _insert(connection, "rows", values)
    figures = [
        (number, split, name, value)
        for split, scores in row.metrics.items()
        for name, value in scores.items()
    ]
    connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?)", figures)


def _settings(connection: sqlite3.Connection, sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Store settings once, however many rows share them, and return their key."""
    body = canonical(sections)
    key = hashlib.sha256(body.encode()).hexdigest()[:32]
    if connection.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (key, body)).rowcount > 0:
        flat = [
            (key, section, name, *_both(value))
            for section, values in json.loads(body).items()
            for name, value in values.items()
        ]
        connection.executemany("INSERT INTO options VALUES (?, ?, ?, ?, ?)", flat)
    return key


def _both(value: Any) -> tuple[str | None, float | None]:
    """A value as text and, where it is one, as number."""
    if value is None:
        return None, None
    if isinstance(value, bool):
        return "true" if value else "false", None
    if isinstance(value, int | float):
        return repr(value), float(value)
    return value if isinstance(value, str) else canonical(value), None


def _insert(connection: sqlite3.Connection, table: str, values: Mapping[str, Any]) -> int:
    """Insert under column names that are constants of this file; every value is bound."""
    names = ", ".join(values)
    marks = ", ".join("?" * len(values))
    done = connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values()))
    assert done.lastrowid is not None
    return done.lastrowid


def _prepared(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA foreign_keys = ON")
    connection.create_function("fold", 1, lambda text: None if text is None else str(text).casefold())
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _state(connection: sqlite3.Connection) -> str:
    """empty, ours, earlier (or with other tables than it should have), later or foreign."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not names:
        return "empty"
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION:
        return "foreign"
    version = _version(connection)
    if version > FORMAT:
        return "later"
    return "ours" if version == FORMAT and names == _NAMES else "earlier"


def _create(connection: sqlite3.Connection) -> None:
    former = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (name,) in former:
        quoted = str(name).replace('"', '""')
        connection.execute(f'DROP TABLE "{quoted}"')
    for statement in filter(None, map(str.strip, _TABLES.split(";"))):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {FORMAT}")
