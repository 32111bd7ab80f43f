"""One run folder as the index sees it: what record.json and config.toml say, checked and flattened.

The record is the truth; this file is the only one of the room that knows how it is laid out.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftx.config.toml import read as read_toml
from peftx.errors import ConfigError, RunError
from peftx.runs import folder as files
from peftx.runs import record as records

__all__ = ["FAILED", "LOOKS", "OPEN", "SCORED", "RowFacts", "RunFacts", "canonical", "read"]

#: States of a row: it has its scores, it ended with an error, it is still to come (or never came).
SCORED, FAILED, OPEN = "scored", "failed", "open"
#: Test scores of epochs other than the kept one; docs/runs.md says which may be compared.
LOOKS = ("last_epoch", "best_on_test")


@dataclass(frozen=True, slots=True)
class RowFacts:
    """A method that was trained in a run. `settings`: its options under ``option``, of training under ``train``, and
    the precision under ``run``. `metrics`: scores by split and name, finite or None. `looks`: test scores beside those,
    by what they are of (``last_epoch``, ``best_on_test``) and name."""

    method: str
    baseline: bool
    state: str
    error: str = ""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    looks: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    trainable: int | None = None
    stored_bytes: int | None = None
    resident_bytes: int | None = None
    peak_memory_bytes: int | None = None
    peak_memory_how: str = ""
    saved_bytes: int | None = None
    seconds: float | None = None
    steps: int | None = None
    epochs: int | None = None
    best_epoch: int | None = None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run. `tested`: whether it was to be scored on the test split; `has_test`: whether its data have one. `setup`:
    the options of its task, data and model. `weights`: what the model's card says of them. `hardware`: what times and
    memory depend on, in words. `selects`: what selected on validation, with its direction, where that is another metric
    than the primary one; else empty."""

    started: str
    status: str
    error: str
    task: str
    method: str
    data: str
    model: str
    primary: str
    higher_is_better: bool
    unit: str
    units: Mapping[str, str]
    seed: int
    precision: str
    device: str
    hardware: str
    tested: bool
    has_test: bool
    fingerprint: str
    weights: str
    setup: Mapping[str, Mapping[str, Any]]
    config: Mapping[str, Any]
    rows: tuple[RowFacts, ...]
    selects: str = ""
    selects_higher_is_better: bool = True


def read(folder: Path) -> RunFacts:
    """Read a run folder.

    Raises:
        RunError: it is no run, or its record or configuration is missing, damaged or of a later version.
    """
    try:
        record = records.read(folder)
        config = read_toml(folder / files.CONFIG) if (folder / files.CONFIG).is_file() else {}
        return _run(record, config)
    except ConfigError as error:
        raise RunError(str(error)) from error
    except RecursionError as error:
        raise RunError(f"{folder / files.RECORD} is damaged: it is nested without end") from error
    except KeyError as error:
        raise RunError(f"{folder / files.RECORD} is damaged: it says nothing about {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunError(f"{folder / files.RECORD} is damaged: {error}") from error


def canonical(value: Any) -> str:
    """The value as JSON that is the same for equal values: sorted keys, no difference between 1 and 1.0."""
    return json.dumps(_even(value), sort_keys=True, separators=(",", ":"))


def _run(record: Mapping[str, Any], config: Mapping[str, Any]) -> RunFacts:
    data, model, units = record["data"], record["model"], record.get("units", {})
    primary = _text(record["primary"])
    return RunFacts(
        started=_text(record["started"]),
        status=_text(record["status"]),
        error=_text(record.get("error") or ""),
        task=_text(record["task"]),
        method=_text(record["method"]),
        data=_text(data["name"]),
        model=_text(model["name"]),
        primary=primary,
        higher_is_better=bool(record["higher_is_better"]),
        unit=_text(units.get(primary, "")),
        units={_text(name): _text(unit) for name, unit in units.items()},
        seed=_required(record["seed"]),
        precision=_text(record["precision"]),
        device=_text(record.get("environment", {}).get("device", "")),
        hardware=_hardware(record.get("environment", {})),
        tested=config.get("test", True) is not False,
        has_test="test" in data.get("sizes", {}),
        fingerprint=_text(data.get("fingerprint") or ""),
        weights=" ".join(_text(model[key]) for key in ("weights", "sha256") if model.get(key)),
        setup={name: _options(config.get(name, {})) for name in ("task", "data", "model")},
        config=config,
        rows=tuple(_rows(record, config)),
        selects=_text(record.get("selects") or ""),
        selects_higher_is_better=bool(record.get("selects_higher_is_better", True)),
    )


def _rows(record: Mapping[str, Any], config: Mapping[str, Any]) -> list[RowFacts]:
    """The run's own row first, whatever became of it; then the baselines it came to."""
    plan = {entry["method"]: entry for entry in record.get("plan", ())}
    own = {
        "method": record["method"],
        "options": _options(config.get("method", {})),
        "train": dict(config.get("train", {})),
    }
    plan.setdefault(record["method"], own)
    rows = [_row(row, plan, record, baseline=index > 0) for index, row in enumerate(record["rows"])]
    if rows:
        return rows
    failed = record["status"] == "failed"
    what = {"error": record.get("error") or "it ended without a word"} if failed else {"open": True}
    return [_row({"method": record["method"], **what}, plan, record, baseline=False)]


def _row(
    row: Mapping[str, Any], plan: Mapping[str, Any], record: Mapping[str, Any], *, baseline: bool
) -> RowFacts:
    method = _text(row["method"])
    given = {**plan.get(method, {}), **row}
    settings = {
        "option": dict(given.get("options") or {}),
        "train": dict(given.get("train") or {}),
        "run": {"precision": record["precision"]},
    }
    if "metrics" not in row:
        state = OPEN if "open" in row else FAILED
        error = _text(row.get("error") or "") if state == FAILED else ""
        return RowFacts(method, baseline, state, error, settings)
    metrics = {
        _text(split): {_text(name): _figure(value) for name, value in values.items()}
        for split, values in row["metrics"].items()
    }
    return RowFacts(
        method,
        baseline,
        SCORED,
        settings=settings,
        metrics=metrics,
        looks={
            name: {_text(key): _figure(value) for key, value in row[name]["metrics"].get("test", {}).items()}
            for name in LOOKS
            if row.get(name) is not None
        },
        trainable=_whole(row.get("trainable")),
        stored_bytes=_whole(row.get("stored_bytes")),
        resident_bytes=_whole(row.get("resident_bytes")),
        peak_memory_bytes=_whole(row.get("peak_memory_bytes")),
        peak_memory_how=_text(row.get("peak_memory_how") or ""),
        saved_bytes=_whole((row.get("efficiency") or {}).get("saved_bytes")),
        seconds=_figure(row.get("seconds")),
        steps=_whole(row.get("steps")),
        epochs=_whole(row.get("epochs")),
        best_epoch=_whole(row.get("best_epoch")),
    )


def _hardware(environment: Mapping[str, Any]) -> str:
    """``cuda NVIDIA H100``, ``cpu x86_64, 2 threads``: runs on another GPU, or on more threads, take another time."""
    parts = [" ".join(str(environment[key]) for key in ("device", "device_name") if environment.get(key))]
    # what a GPU does is not a matter of the processor's threads
    counted = ("threads", "processes") if environment.get("device") == "cpu" else ("processes",)
    for what in counted:
        number = environment.get(what)
        if number and (what == "threads" or number != 1):
            parts.append(f"{number} {what if number != 1 else what[:-1]}")
    return _text(", ".join(filter(None, parts)))


def _options(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "name"}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} stands where text was expected")
    return value.encode("utf-8", "replace").decode()  # a lone surrogate can be neither stored nor printed


def _required(value: Any) -> int:
    found = _whole(value)
    if found is None:
        raise TypeError("null stands where a whole number was expected")
    return found


def _whole(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise TypeError(f"{value!r:.40} stands where a whole number was expected")
    return value


def _figure(value: Any) -> float | None:
    """A finite number or None. A figure that is not finite was written as null."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.40} stands where a number was expected")
    return float(value) if math.isfinite(value) else None


def _even(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _even(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_even(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int | float | bool | None) else _text(str(value))
