"""Going on with a run that did not come to its end: is it the same run, on the same data?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftx.config.toml import read as read_toml
from peftx.errors import RunError
from peftx.runs import folder as files
from peftx.runs import record as records
from peftx.runs.planning import Plan

__all__ = ["FREE", "Former", "differences", "reopen_unfinished"]

#: Settings that change nothing about the result: a run may go on with others.
FREE = frozenset(
    {
        "data_root",
        "offline",
        "out",
        "efficiency",
        "report",
        "track",
        "train.workers",
        "train.checkpoint",
    }
)


@dataclass(frozen=True, slots=True)
class Former:
    """A run that stands in a folder."""

    folder: Path
    config: Mapping[str, Any]
    record: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do."""
        return self.record.get("status") == "complete"

    def train_of(self, method: str) -> dict[str, Any] | None:
        """The training settings a row began with."""
        return next((dict(row["train"]) for row in self.record["plan"] if row["method"] == method), None)


def reopen_unfinished(plan: Plan) -> Former:
    """The run in ``plan.config.out``, if it is the one the plan describes.

    Raises:
        RunError: there is no run, its files are damaged, or it was begun with other settings.
    """
    out = plan.config.out
    if out is None or not out.is_dir():
        raise RunError(f"there is no run to resume at {out}")
    if not files.is_run(out):
        raise RunError(f"{out} holds no run to resume: it has no {files.CONFIG}")
    stored = read_toml(out / files.CONFIG)
    record = records.read(out)
    if not isinstance(record.get("plan"), list):
        raise RunError(f"{out} was written by an earlier peftx, which could not resume: begin it anew")
    _check_sound(out, record)
    found = differences(plan, stored)
    if found:
        raise RunError(
            "\n".join([f"{out} was begun with other settings, so it cannot go on with these:", *found])
        )
    return Former(out, stored, record)


def _check_sound(out: Path, record: Mapping[str, Any]) -> None:
    """Refuse a record that lacks what going on needs."""
    rows = [*record["plan"], *record["rows"]] if isinstance(record.get("rows"), list) else [None]
    sound = all(isinstance(row, dict) and isinstance(row.get("method"), str) for row in rows)
    sound = sound and all(isinstance(row.get("train"), dict) for row in record["plan"])
    parts = [record.get(name) for name in ("data", "versions", "environment")]
    sound = sound and all(isinstance(part, dict) for part in parts) and isinstance(record.get("notes"), list)
    sound = sound and isinstance(record["data"].get("fingerprint"), str)
    sound = sound and isinstance(record["environment"].get("threads"), int)
    if not sound:
        raise RunError(f"{out / files.RECORD} is damaged: it lacks what a run needs to go on; begin it anew")


def differences(plan: Plan, stored: Mapping[str, Any]) -> list[str]:
    """What `plan` asks otherwise than a stored config.toml, one sentence each.

    What the plan leaves open of `train` came from the task's recipe then, and comes from the folder now.
    """
    asked = dict(_flat(plan.resolved(plan.config.train)))
    for name in type(plan.config.train).model_fields:
        if name not in plan.config.train.model_fields_set:
            asked.pop(f"train.{name}", None)
        else:
            asked.setdefault(f"train.{name}", None)  # none was asked for, which is not to leave it open
    if plan.config.baselines is None:
        asked.pop("baselines", None)
    then = dict(_flat(stored))
    for key, field in type(plan.config).model_fields.items():
        if key in asked and isinstance(field.default, bool):  # a switch that an earlier peftx did not have
            then.setdefault(key, field.default)
    found = []
    for key in sorted({*asked, *(key for key in then if not key.startswith(("train.", "baselines")))}):
        if key in FREE:
            continue
        if asked.get(key) != then.get(key):
            found.append(f"  {key}: {_word(then.get(key))} there, {_word(asked.get(key))} now")
    return found


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        # options that are mappings themselves (rank_pattern) are compared whole
        if isinstance(value, Mapping) and not prefix:
            yield from _flat(value, f"{key}.")
        elif value is not None and value != {}:
            yield f"{prefix}{key}", _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value if item is not None]
    return value


def _word(value: Any) -> str:
    return "not set" if value is None else repr(value) if isinstance(value, str) else str(value)
