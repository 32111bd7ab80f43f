"""The index over a folder of runs: always as the records say, however it stood when it was opened.

record.json is the truth and SQLite only remembers what stood in it. Opening walks the folder, reads what changed since
and forgets what is gone; several processes may do so at once, and one that is killed leaves a sound file. What cannot
be written is kept in memory; what cannot be read is named in `skipped`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

from peftx.errors import RunError
from peftx.results import facts, store, where
from peftx.results.scanning import Skipped, scan, stamp_of
from peftx.runs import folder as files

__all__ = ["Entry", "Index", "default_root", "register"]

T = TypeVar("T")

#: Runs read between two transactions: short enough that other writers never wait long.
BATCH = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of one run. `folder`: the run's, as one would type it. `status`: the run's, or ``failed`` for a row that
    failed. `metrics`: by split and name; `looks`: test scores of other epochs, by which and name. `settings`: the
    row's, by section (``option``, ``train``, ``run``) and name; `setup`: the options of task, data and model."""

    folder: str
    started: str
    status: str
    state: str
    error: str
    task: str
    method: str
    baseline: bool
    data: str
    model: str
    primary: str
    unit: str
    higher_is_better: bool
    seed: int
    device: str
    hardware: str
    tested: bool
    has_test: bool
    fingerprint: str
    weights: str
    trainable: int | None
    stored_bytes: int | None
    resident_bytes: int | None
    peak_memory_bytes: int | None
    peak_memory_how: str
    saved_bytes: int | None
    seconds: float | None
    steps: int | None
    epochs: int | None
    best_epoch: int | None
    units: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    looks: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    setup: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    selects: str = ""
    selects_higher_is_better: bool = True

    def decides(self, split: str) -> tuple[str, bool]:
        """The metric that decides on a split, and whether more of it is better."""
        if split == "val" and self.selects:
            return self.selects, self.selects_higher_is_better
        return self.primary, self.higher_is_better

    def score(self, split: str) -> float | None:
        """The metric that decides on a split."""
        return self.metrics.get(split, {}).get(self.decides(split)[0])


_PLAIN = (
    "started status state error task method baseline data model unit higher_is_better seed device hardware tested "
    "has_test fingerprint weights trainable stored_bytes resident_bytes peak_memory_bytes peak_memory_how saved_bytes "
    "seconds steps epochs best_epoch selects selects_higher_is_better"
).split()
_FLAGS = ("baseline", "higher_is_better", "tested", "has_test", "selects_higher_is_better")

_QUERY = f"""
SELECT u.folder, u.started, {where.KEYS["status"][0]} AS status, u.task, u.data, u.model, u.primary_metric, u.unit,
    u.units, u.higher_is_better, u.seed, u.device, u.hardware, u.tested, u.has_test, u.fingerprint, u.weights, u.setup,
    r.state, r.error, r.method, r.baseline, r.settings, r.scores, r.looks, r.trainable, r.stored_bytes,
    r.resident_bytes, r.peak_memory_bytes, r.peak_memory_how, r.saved_bytes, r.seconds, r.steps, r.epochs, r.best_epoch,
    u.selects, u.selects_higher_is_better
FROM rows r JOIN runs u ON u.id = r.run
"""

# one parameter however many folders there are: a chain of ORs as long as a large bench is deeper than SQLite allows
_INSIDE = """
SELECT 1 FROM json_each(?) AS f
WHERE u.folder = f.value OR substr(u.folder, 1, length(f.value) + 1) = f.value || '/'
"""


class Index:
    """The runs below `root` (default: `default_root`).

    `notes`: what its user should know about the index itself; `skipped`: folders that could not be used. Use as a
    context manager, or `close` it.

    Args:
        root: a folder of runs; the index is ROOT/.index.sqlite.
        refresh: bring the index up to date first.
        rebuild: forget what the index knows and read every run again.
        memory: write nothing.
        below: look at these folders of `root` alone; for an index in memory.

    Raises:
        RunError: there is no such folder, or a later peftx wrote the index.
    """

    def __init__(
        self,
        root: Path | str | None = None,
        *,
        refresh: bool = True,
        rebuild: bool = False,
        memory: bool = False,
        below: Sequence[Path] = (),
    ) -> None:
        self.root = default_root() if root is None else Path(root).expanduser()
        self.notes: list[str] = []
        self.skipped: list[Skipped] = []
        if not self.root.is_dir():
            what = "is a file" if self.root.exists() else "is not there"
            raise RunError(
                f"the folder of runs {self.root} {what}: `peftx run` makes one, and --root or PEFTX_RUNS names another"
            )
        # a run's own folder gets nothing that is not the run's
        alone = files.is_run(self.root) or (self.root / files.RECORD).is_file()
        self.path = None if memory or alone or below else self.root / store.NAME
        self._below = tuple(below)
        self._current = not refresh
        self._connection: sqlite3.Connection | None = None
        self._rebuild = rebuild
        self._do(lambda connection: None)

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Self:
        """The runs in or below some folders, wherever they are; in memory, so nothing is written there.

        Raises:
            RunError: one of them is no folder.
        """
        for folder in folders:
            if not folder.is_dir():
                raise RunError(f"no folder at {folder}")
        absolute = any(folder.is_absolute() for folder in folders)
        paths = [Path(os.path.abspath(folder)) if absolute else folder for folder in folders]
        return cls(Path(os.path.commonpath(paths)), memory=True, below=paths)

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def refresh(self) -> None:
        """Read what changed since, and forget what is gone."""
        self._current = False
        self._do(lambda connection: None)

    def add(self, folder: Path) -> None:
        """Register one run, without a walk over the others.

        Raises:
            RunError: `folder` is no run, or lies outside the root.
        """
        name = self._relative(folder)
        try:
            name.encode()
        except UnicodeEncodeError:
            raise RunError(f"{name!a} is not valid UTF-8, so no index can hold it: rename it") from None
        stamp, run = stamp_of(folder), facts.read(folder)

        def put(connection: sqlite3.Connection) -> None:
            with store.writing(connection):
                store.insert(connection, name, stamp, run)

        self._do(put)

    def entries(
        self,
        expressions: Sequence[str] = (),
        *,
        sort: Sequence[str] = (),
        limit: int | None = None,
        folders: Sequence[Path | str] = (),
    ) -> list[Entry]:
        """Rows that fulfil every expression (`peftx.results.where`), newest run first and its own method first in it.

        Args:
            expressions: such as ``method=core.lora`` or ``test.accuracy>=97``.
            sort: keys, the most important first; a minus in front turns the order round.
            limit: so many at most.
            folders: only runs in or below these.

        Raises:
            ConfigError: an expression or a key to sort by is wrong.
            RunError: a folder lies outside the root.
        """
        inside = [self._relative(Path(folder)) for folder in folders]

        def ask(connection: sqlite3.Connection) -> list[Entry]:
            wanted = where.conditions(connection, expressions)
            orders = [where.order_by(connection, key) for key in sort]
            sql, values = f"{_QUERY} WHERE {wanted.sql}", [*wanted.values]
            if inside and "." not in inside:
                sql += f" AND EXISTS ({_INSIDE})"
                values.append(json.dumps(inside))
            orders.append(where.Condition("u.started DESC, u.folder, r.position"))
            sql += " ORDER BY " + ", ".join(one.sql for one in orders)
            values += [value for one in orders for value in one.values]
            if limit is not None:
                sql += " LIMIT ?"
                values.append(limit)
            connection.execute("BEGIN")  # rows and settings from one moment
            try:
                rows = connection.execute(sql, values).fetchall()
                bodies = dict(connection.execute("SELECT key, body FROM settings").fetchall())
            finally:
                connection.execute("COMMIT")
            settings = _Once(bodies)
            return [self._entry(row, settings) for row in rows]

        return self._do(ask)

    def keys(self) -> list[str]:
        """Every key an expression may have here."""
        return self._do(where.keys_of)

    # --- the file, and what may happen to it ----------------------------------------------------------------

    def _do(self, action: Callable[[sqlite3.Connection], T]) -> T:
        """Carry out `action` on an index that is up to date, on another one when the file fails."""
        for last in (False, False, True):
            try:
                connection = self._open()
                if not self._current:
                    self._refresh(connection)
                    self._current = True
                return action(connection)
            except sqlite3.Error as error:
                if last:
                    raise RunError(
                        f"the index of {self.root} failed ({error}): rebuild it with `peftx results --rebuild --root "
                        f"{self.root}`"
                    ) from error
                self._mend(error)
        raise AssertionError("the last round returns or raises")

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            if self.path is None:
                self._connection = store.in_memory(
                    None if self._rebuild or self._below else self.root / store.NAME
                )
            else:
                self._connection = store.connect(self.path, rebuild=self._rebuild)
                self._rebuild = False
        return self._connection

    def _mend(self, error: sqlite3.Error) -> None:
        """Another file for a damaged one; memory where nothing can be written."""
        self.close()
        self._current = False
        if self.path is not None and store.is_damage(error):
            try:
                self.notes.append(store.replace(self.path))
                return
            except OSError:
                self._rebuild = True  # do not copy the damage
        if self.path is not None:
            self.notes.append(f"{self.path} cannot be written ({error}): this index is kept in memory")
        self.path = None

    def _refresh(self, connection: sqlite3.Connection) -> None:
        known = dict(connection.execute("SELECT folder, stamp FROM runs").fetchall())
        found = scan(self.root, self._below)
        self.skipped = [Skipped(self._typed(one.folder), one.cause) for one in found.skipped]
        batch: list[tuple[str, str, facts.RunFacts]] = []
        gone = {name for name in known if name not in found.runs}
        for name, stamp in found.runs.items():
            if known.get(name) == stamp:
                continue
            try:
                # the stamp is older than what is read: a run that changes meanwhile is read again next time
                batch.append((name, stamp, facts.read(self.root / name)))
            except RunError as error:
                if _is_run(self.root / name):  # else it was deleted since the walk
                    self.skipped.append(Skipped(self._typed(name), str(error)))
                gone |= {name} & known.keys()
            if len(batch) >= BATCH:
                self._write(connection, batch, ())
                batch = []
        # a run that another process registered after this one's walk is not gone
        gone = {name for name in gone if name in found.runs or not _is_run(self.root / name)}
        if batch or gone:
            self._write(connection, batch, gone)

    def _write(
        self,
        connection: sqlite3.Connection,
        batch: Sequence[tuple[str, str, facts.RunFacts]],
        gone: Iterable[str],
    ) -> None:
        with store.writing(connection):
            for name, stamp, run in batch:
                store.insert(connection, name, stamp, run)
            if gone:
                store.forget(connection, gone)

    def _relative(self, folder: Path) -> str:
        """A folder's name in this index."""
        folder = folder.expanduser()
        as_typed = (
            Path(os.path.abspath(folder)),
            Path(os.path.abspath(self.root)),
        )  # links keep the name they have
        for one, other in (as_typed, (folder.resolve(), self.root.resolve())):
            if one.is_relative_to(other):
                return one.relative_to(other).as_posix()
        raise RunError(f"{folder} is not below {self.root}: name its root with --root")

    def _typed(self, name: str) -> str:
        """A run's folder as one would type it here."""
        return str(self.root if name == "." else self.root / name)

    def _entry(self, row: sqlite3.Row, settings: _Once) -> Entry:
        values = {name: row[name] for name in _PLAIN}
        values |= {name: bool(row[name]) for name in _FLAGS}
        return Entry(
            folder=self._typed(row["folder"]),
            primary=row["primary_metric"],
            units=json.loads(row["units"]),
            metrics=json.loads(row["scores"]),
            looks=json.loads(row["looks"]),
            settings=settings[row["settings"]],
            setup=settings[row["setup"]],
            **values,
        )


class _Once(dict[str, Any]):
    """Bodies of settings, read from JSON when they are first asked for."""

    def __init__(self, bodies: Mapping[str, str]) -> None:
        super().__init__()
        self._bodies = bodies

    def __missing__(self, key: str) -> Any:
        self[key] = json.loads(self._bodies[key])
        return self[key]


def default_root() -> Path:
    """The folder of runs: what the variable PEFTX_RUNS names, else ``runs``."""
    return files.home()


def register(folder: Path, root: Path | None = None) -> None:
    """Put a run that just ended into the index of `root` (default: `default_root`), if it lies there.

    Never raises on account of the index: whoever opens it next reads the run anyway.
    """
    root = default_root() if root is None else root
    if not root.is_dir() or root.resolve() not in folder.resolve().parents:
        return
    with contextlib.suppress(RunError, OSError), Index(root, refresh=False) as index:
        index.add(folder)


def _is_run(folder: Path) -> bool:
    return files.is_run(folder) or (folder / files.RECORD).is_file()
