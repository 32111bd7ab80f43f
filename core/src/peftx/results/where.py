"""The little language of ``--where``: ``method=core.lora``, ``test.accuracy>=97``, ``option.rank=8``.

An expression is a key, an operator and a value; several are anded. It becomes SQL whose names are constants of this
file and whose values, keys typed by the user among them, are bound parameters.

    =  !=          equal or not; numbers as numbers
    <  <=  >  >=   order of numbers, and of the text of `started`
    ~  !~          the value's text holds this, or not, whatever the case

A row without the value matches no expression, but for ``KEY=none``.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from peftx.errors import ConfigError, near_matches

__all__ = ["KEYS", "Condition", "conditions", "keys_of", "order_by", "parse"]

#: Key -> SQL expression and kind. `r` is a row, `u` its run.
KEYS: dict[str, tuple[str, str]] = {
    "run": ("u.folder", "text"),
    "started": ("u.started", "time"),
    "status": ("CASE WHEN r.state = 'failed' THEN 'failed' ELSE u.status END", "text"),
    "state": ("r.state", "text"),
    "error": ("NULLIF(r.error, '')", "text"),
    "method": ("r.method", "text"),
    "baseline": ("CASE r.baseline WHEN 1 THEN 'true' ELSE 'false' END", "text"),
    "task": ("u.task", "text"),
    "data": ("u.data", "text"),
    "model": ("u.model", "text"),
    "seed": ("u.seed", "number"),
    "precision": ("u.precision", "text"),
    "device": ("u.device", "text"),
    "hardware": ("u.hardware", "text"),
    "primary": ("u.primary_metric", "text"),
    "tested": ("CASE u.tested WHEN 1 THEN 'true' ELSE 'false' END", "text"),
    "fingerprint": ("u.fingerprint", "text"),
    "val": (
        "(SELECT value FROM metrics WHERE row = r.id AND split = 'val' "
        "AND name = COALESCE(NULLIF(u.selects, ''), u.primary_metric))",
        "number",
    ),
    "test": (
        "(SELECT value FROM metrics WHERE row = r.id AND split = 'test' AND name = u.primary_metric)",
        "number",
    ),
    "trainable": ("r.trainable", "number"),
    "stored": ("r.stored_bytes", "number"),
    "resident": ("r.resident_bytes", "number"),
    "memory": ("r.peak_memory_bytes", "number"),
    "saved": ("r.saved_bytes", "number"),
    "seconds": ("r.seconds", "number"),
    "steps": ("r.steps", "number"),
    "epochs": ("r.epochs", "number"),
    "best_epoch": ("r.best_epoch", "number"),
}

#: Sections of options, and the column that says which settings hold them.
_SECTIONS = {
    "option": "r.settings",
    "train": "r.settings",
    "task": "u.setup",
    "data": "u.setup",
    "model": "u.setup",
}
_EXPRESSION = re.compile(
    r"\s*([^\s=!<>~](?:[^=!<>~]*[^\s=!<>~])?)\s*(>=|<=|!=|!~|==|=|~|<|>)\s*(.*?)\s*", re.DOTALL
)
_ORDER = ("<", "<=", ">", ">=")


@dataclass(frozen=True, slots=True)
class Condition:
    """A piece of SQL that is true of the rows asked for, and the values of its question marks."""

    sql: str
    values: tuple[str | float, ...] = ()


_NULL = Condition("NULL")


@dataclass(frozen=True, slots=True)
class _Value:
    """How a key is looked up: as number and as text, either of which may be NULL."""

    kind: str
    number: Condition = _NULL
    text: Condition = _NULL

    def missing(self) -> Condition:
        """True of a row that has neither."""
        sql = f"({self.number.sql} IS NULL AND {self.text.sql} IS NULL)"
        return Condition(sql, (*self.number.values, *self.text.values))


def conditions(connection: sqlite3.Connection, expressions: Sequence[str]) -> Condition:
    """All expressions at once; true of every row when there are none. Raises ConfigError as `parse` does."""
    found = [parse(connection, expression) for expression in expressions]
    sql = " AND ".join(f"({one.sql})" for one in found) or "1"
    return Condition(sql, tuple(value for one in found for value in one.values))


def parse(connection: sqlite3.Connection, expression: str) -> Condition:
    """Turn one expression into a condition on the rows of the index.

    Raises:
        ConfigError: it is no expression, no run here has its key, or its value does not go with its key and operator.
    """
    expression = _storable(expression)
    found = _EXPRESSION.fullmatch(expression)
    if found is None:
        raise ConfigError(
            f"--where {expression!r} is no expression: write a key, an operator and a value, such as method=core.lora, "
            "'test.accuracy>=97' or data~digits"
        )
    key, sign, text = found.groups()
    sign = "=" if sign == "==" else sign
    value = _look_up(connection, key, f"--where {expression!r}")
    number = _number(text)
    if sign in ("=", "!=") and text.lower() == "none":
        missing = value.missing()
        return missing if sign == "=" else Condition(f"NOT {missing.sql}", missing.values)
    if sign in ("~", "!~"):
        if value.kind == "number":
            raise ConfigError(
                f"--where {expression!r}: {key} is a number, which holds no text: write {key}=..."
            )
        compare = ">" if sign == "~" else "="
        return Condition(
            f"instr(fold({value.text.sql}), ?) {compare} 0", (*value.text.values, text.casefold())
        )
    if sign in _ORDER and value.kind == "text":
        raise ConfigError(
            f"--where {expression!r}: {key} is text, which has no order: write {key}=... or {key}~..."
        )
    if value.kind in ("text", "time"):
        return _compared(value.text, sign, text)
    if value.kind == "number" or sign in _ORDER:
        if number is None:
            raise ConfigError(f"--where {expression!r}: {text!r} is not a number, and {key} {sign} needs one")
        return _compared(value.number, sign, number)
    as_text = _compared(value.text, sign, text)
    if number is None:
        return as_text
    # an option may be either: 8 is 8.0 as a number, and "8" is itself as text
    as_number = _compared(value.number, sign, number)
    joined = (
        f"coalesce({as_number.sql}, 0) OR {as_text.sql}"
        if sign == "="
        else f"coalesce({as_number.sql}, 1) AND {as_text.sql}"
    )
    return Condition(joined, (*as_number.values, *as_text.values))


def order_by(connection: sqlite3.Connection, key: str) -> Condition:
    """The ORDER BY of a key, largest first when it begins with a minus; rows without the value come last.

    Raises ConfigError when no run here has the key.
    """
    key = _storable(key)
    value = _look_up(connection, key.removeprefix("-"), f"--sort {key}")
    down = " DESC" if key.startswith("-") else ""
    missing = value.missing()
    return Condition(
        f"{missing.sql}, {value.number.sql}{down}, {value.text.sql}{down}",
        (*missing.values, *value.number.values, *value.text.values),
    )


def keys_of(connection: sqlite3.Connection) -> list[str]:
    """Every key there is: those of all rows, then the metrics and options of the runs in this index."""
    metrics = connection.execute("SELECT DISTINCT split, name FROM metrics ORDER BY split, name")
    options = connection.execute("SELECT DISTINCT section, name FROM options ORDER BY section, name")
    known = [f"{section}.{name}" for section, name in options if section in _SECTIONS]
    return [*KEYS, *(f"{split}.{name}" for split, name in metrics), *known]


def _look_up(connection: sqlite3.Connection, key: str, where: str) -> _Value:
    if key in KEYS:
        sql, kind = KEYS[key]
        return _Value(kind, number=Condition(sql)) if kind == "number" else _Value(kind, text=Condition(sql))
    head, _, name = key.partition(".")
    if connection.execute(
        "SELECT 1 FROM metrics WHERE split = ? AND name = ? LIMIT 1", (head, name)
    ).fetchone():
        figure = "(SELECT value FROM metrics WHERE row = r.id AND split = ? AND name = ?)"
        return _Value("number", number=Condition(figure, (head, name)))
    known = keys_of(connection)
    if key not in known and connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone():
        hint = (
            near_matches(key, known)
            or f" Keys: {', '.join(KEYS)}, test.METRIC, option.NAME, train.NAME, data.NAME."
        )
        raise ConfigError(f"{where}: no run here has {key!r}.{hint}")
    settings = _SECTIONS.get(head, "r.settings")
    inner = f"(SELECT {{}} FROM options WHERE settings = {settings} AND section = ? AND name = ?)"
    number, text = (Condition(inner.format(column), (head, name)) for column in ("number", "text"))
    return _Value("option", number, text)


def _compared(value: Condition, sign: str, other: str | float) -> Condition:
    return Condition(f"{value.sql} {sign} ?", (*value.values, other))


def _storable(text: str) -> str:
    """Without the bytes that were no UTF-8 when they were typed: SQLite takes text alone."""
    return text.encode("utf-8", "replace").decode()


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
