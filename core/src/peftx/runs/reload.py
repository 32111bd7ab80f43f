"""What a run folder is good for later: score it again, exactly, and predict on new files."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from peftx import artifacts
from peftx.config.errors import as_config_error
from peftx.config.run import RunConfig
from peftx.config.toml import read as read_toml
from peftx.data.contract import Dataset, Split
from peftx.errors import DataError, RunError
from peftx.plugins.registry import Registry
from peftx.runs import folder as files
from peftx.runs import provenance
from peftx.runs import record as records
from peftx.runs.asking import asked_of
from peftx.runs.calibrating import calibrate, keep_calibration, read_calibration
from peftx.runs.planning import Plan, preflight
from peftx.runs.result import Run
from peftx.runs.session import load_data, make_task, threads_of
from peftx.runs.subject import base_of
from peftx.tasks.contract import Task
from peftx.tasks.scoring import evaluate as score
from peftx.training.backend import Backend
from peftx.training.progress import Progress

__all__ = ["Reproduction", "evaluate", "predict", "rebuild", "reopen", "without_data"]


@dataclass(frozen=True, slots=True)
class Reproduction:
    """Recorded and newly measured metrics by split. `changed`: what differs between then and now, as
    sentences."""

    folder: Path
    recorded: dict[str, dict[str, float]]
    measured: dict[str, dict[str, float]]
    changed: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether every metric of every split came out the same, to the last bit."""
        return not self.differences()

    def differences(self) -> list[tuple[str, str, float | None, float | None]]:
        """(split, metric, recorded, measured) of every recorded metric that differs; a later peftx may measure more."""
        return [
            (split, name, then, self.measured[split].get(name))
            for split, values in self.recorded.items()
            for name, then in values.items()
            if not _same(then, self.measured[split].get(name))
        ]

    def summary(self) -> str:
        """One or more sentences on the outcome."""
        if self.exact:
            return f"{self.folder}: the recorded scores are reproduced exactly"
        lines = [
            f"{split} {name}: recorded {then}, measured {now}"
            for split, name, then, now in self.differences()
        ]
        because = f" ({'; '.join(self.changed)})" if self.changed else ""
        return "\n".join([f"{self.folder}: the recorded scores are NOT reproduced{because}", *lines])


def _same(then: float | None, now: float | None) -> bool:
    # a record has null where a figure was no number
    return then == now or (then is None and now is not None and not math.isfinite(now))


def evaluate(
    folder: Path | str,
    registry: Registry | None = None,
    progress: Progress | None = None,
    *,
    data_root: Path | None = None,
    device: str | None = None,
) -> Reproduction:
    """Rebuild the model of a run, load its adapter and score every recorded split again, as it was scored
    then.

    Raises:
        RunError: the folder is no finished run.
        DataError: the data are not those of the run.
        ArtifactError: the adapter is damaged or belongs to another base model.
    """
    folder, progress = Path(folder), progress or Progress()
    plan, record = reopen(folder, registry, data_root=data_root, device=device)
    progress.stage(f"loading {plan.data_name}")
    data = load_data(plan)
    if data.fingerprint != record["data"]["fingerprint"]:
        raise DataError(
            f"{plan.data_name} is not the data of this run: its fingerprint is {data.fingerprint[:12]}, "
            f"recorded was {record['data']['fingerprint'][:12]}; give the same files and options"
        )
    task = make_task(plan, data)
    recorded = record["rows"][0]["metrics"]
    task.prepare(list(recorded))
    measured: dict[str, dict[str, float]] = {}
    run = Run(plan.config, folder)
    with threads_of(record):
        backend, model = rebuild(plan, task, folder)
        for split in recorded:
            measured[split] = score(
                task, model, split, record["eval_batch_size"], backend=backend, progress=progress
            )
            plan.registry.events.fire(
                "peftx_evaluated",
                run=run,
                row=plan.method.name,
                split=split,
                step=record["rows"][0]["steps"],
                metrics=measured[split],
            )
        if not read_calibration(folder):  # of a cell of a bench, or of an earlier version
            with contextlib.suppress(RunError):  # a score is told where nothing can be written, too
                keep_calibration(folder, calibrate(task, model, list(recorded), backend, progress.note))
    return Reproduction(folder, recorded, measured, _changed(plan, record, backend))


def predict(
    folder: Path | str,
    paths: Sequence[Path | str],
    top: int = 5,
    registry: Registry | None = None,
    *,
    device: str | None = None,
    explain: Path | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Predict on files with the model of a run; needs the base model and the run folder, not the data.

    A folder stands for the files in it and below it that the task can read, in the order of their names. `explain`: a
    new or an empty folder for pictures of the answers, or of where each comes from; an answer names its own under
    ``explained``. `options`: what the task may be asked besides (``TaskSpec.predict_config``).

    Raises:
        RunError: the folder is no finished run.
        ConfigError: the task has no such option, or refuses a value.
        DataError: a file cannot be read, a folder has none of the task's, or `explain` is taken or cannot be written.
        UserError: the task cannot explain its answers.
    """
    folder, pictures = Path(folder), None if explain is None else _empty(Path(explain))
    plan, record = reopen(folder, registry, device=device, locate=False)
    task = make_task(plan, without_data(record))
    task.predict_options = asked_of(plan.task, options or {})
    task.calibration = read_calibration(folder)
    files = [file for path in paths for file in _files(Path(path), task.suffixes)]
    backend, model = rebuild(plan, task, folder)
    model.eval()
    with torch.no_grad(), backend.autocast():
        found = task.predict(model, files, top=top, device=backend.device)
    if pictures is None:
        return found
    with torch.no_grad():
        drawn = task.illustrate(
            model, files, found, pictures, device=backend.device, autocast=backend.autocast
        )
    return [answer | {"explained": str(path)} for answer, path in zip(found, drawn, strict=True)]


def _empty(folder: Path) -> Path:
    """A folder nothing of which will be overwritten."""
    folder = folder.expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = any(folder.iterdir())
    except OSError as error:
        raise DataError(f"{folder} cannot be a folder of pictures: {error.strerror or error}") from error
    if taken:
        raise DataError(f"{folder} is not empty: name a new or an empty folder")
    return folder


def _files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not path.is_dir():
        return [path]
    if not suffixes:
        raise DataError(f"{path} is a folder, and this task takes no folders: name the files in it")
    found = sorted(
        file
        for file in path.rglob("*")
        if file.name.lower().endswith(suffixes)
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        raise DataError(f"the folder {path} has no file that ends in {', '.join(suffixes)}")
    return found


def without_data(record: dict[str, Any]) -> Dataset:
    """What a record says of its data: enough to build the model again, without the samples."""
    about = record["data"]
    return Dataset(
        name=about["name"],
        splits={"train": _Nothing(), "val": _Nothing()},
        classes=tuple(about["classes"]),
        fingerprint=about["fingerprint"],
        card=about["card"],
    )


class _Nothing(Split[Any]):
    """A split of no samples: predicting needs the class names, not the data."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Any:
        raise IndexError(index)


def reopen(
    folder: Path,
    registry: Registry | None,
    *,
    data_root: Path | None = None,
    device: str | None = None,
    locate: bool = True,
) -> tuple[Plan, dict[str, Any]]:
    """The plan and the record of a finished run.

    Raises:
        RunError: the folder is no finished run.
    """
    record = records.read(folder)
    # a model without parameters stores nothing
    stores = any(row.get("stored_bytes") for row in record.get("rows", ())[:1])
    if not record.get("rows") or (stores and not (folder / files.ADAPTER).is_dir()):
        raise RunError(f"{folder} holds no trained adapter: the run did not finish")
    try:
        config = RunConfig.model_validate(read_toml(folder / files.CONFIG))
    except ValidationError as error:
        raise RunError(
            f"{folder / files.CONFIG} does not fit this version: {as_config_error(error)}"
        ) from error
    config.device = device or _former_device(record)
    config.baselines = []
    if data_root is not None:
        config.data_root = data_root
    return preflight(config, registry, locate=locate), record


def _former_device(record: dict[str, Any]) -> str:
    """The kind of device the run used, if this machine has one; another gives other last bits."""
    kind = record["environment"]["device"]
    if kind == "cuda" and not torch.cuda.is_available():
        return "cpu"
    if kind == "mps" and not torch.backends.mps.is_available():
        return "cpu"
    return str(kind)


def rebuild(plan: Plan, task: Task, folder: Path) -> tuple[Backend, nn.Module]:
    """The model of a run with its adapter, where the plan says.

    Raises:
        ArtifactError: the adapter is damaged or belongs to another base model.
    """
    backend = Backend(plan.config.device, plan.config.precision)
    # the head the run started from: an adapter that trains part of it needs the rest
    model = base_of(plan.method, plan.method_config, task, plan.config.seed)
    if (folder / files.ADAPTER).is_dir():
        artifacts.load(model, folder / files.ADAPTER)
    return backend, model.to(backend.device)


def _changed(plan: Plan, record: dict[str, Any], backend: Backend) -> tuple[str, ...]:
    now = {**provenance.versions(plan.registry), **provenance.environment(backend)}
    then = {**record["versions"], **record["environment"]}
    return tuple(
        f"{name} was {then[name]}, is {now.get(name, 'absent')}"
        for name in then
        if then[name] != now.get(name) and name not in ("threads", "processes")
    )
