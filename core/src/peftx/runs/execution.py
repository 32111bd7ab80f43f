"""One run, from configuration to record: puts the rooms below together.

Torch is imported only after everything that can be checked without it was checked.
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftx.config.run import RunConfig
from peftx.config.toml import dumps
from peftx.errors import PeftxError
from peftx.plugins.descriptors import MethodSpec
from peftx.plugins.registry import Entry, Registry
from peftx.runs import folder as files
from peftx.runs import record as records
from peftx.runs.planning import Plan, preflight, settle
from peftx.runs.result import Run, RunResult
from peftx.training.progress import Progress

if TYPE_CHECKING:
    from peftx.tasks.contract import Task
    from peftx.training.backend import Backend

__all__ = ["execute"]


def execute(
    config: RunConfig, registry: Registry | None = None, progress: Progress | None = None
) -> RunResult:
    """Train the method and its baselines, score them on validation and test data, and write the run folder.

    The record is written as soon as the method's own row is done and again after each baseline; a baseline
    that fails is a row that says so.

    Raises:
        UserError: something about the run can be mended by its user.
        TrainingError: the method's own training stopped itself.
    """
    progress = progress or Progress()
    started = time.perf_counter()
    plan = preflight(config, registry)

    from peftx.runs.rows import rehearse
    from peftx.runs.session import load_data, make_task
    from peftx.training.backend import Backend

    backend = Backend(config.device, config.precision)
    progress.stage(f"loading {plan.data_name}")
    data = load_data(plan)
    task = make_task(plan, data)
    task.prepare(task.splits())
    train = settle(config.train, task.recipe(plan.method.name))
    rehearse(plan.method, plan.method_config, task, backend, train.batch_size)
    folder = files.create(config.out, plan.method.name, plan.data.name)
    files.write_text(folder / files.CONFIG, dumps(plan.resolved(train)))
    run = Run(config, folder)
    plan.registry.events.fire("peftx_run_started", run=run)

    record = _train_all(plan, task, train, backend, run, progress, started)
    plan.registry.events.fire("peftx_run_finished", run=run, record=record)
    return RunResult(folder, record)


def _train_all(
    plan: Plan, task: Task, train: Any, backend: Backend, run: Run, progress: Progress, started: float
) -> dict[str, Any]:
    from peftx import artifacts
    from peftx.runs import provenance
    from peftx.runs.rows import train_row

    record: dict[str, Any] = {
        "format": records.FORMAT,
        "started": provenance.now(),
        "status": "training",
        "task": plan.task.name,
        "method": plan.method.name,
        "primary": task.primary,
        "higher_is_better": task.higher_is_better,
        "units": dict(task.units),
        "seed": plan.config.seed,
        "precision": plan.config.precision,
        "eval_batch_size": train.eval_batch_size,
        "versions": provenance.versions(plan.registry),
        "environment": provenance.environment(backend.device),
        "git": provenance.git_state(),
        "data": provenance.data_card(task.data) | {"name": plan.data_name},
        "rows": [],
        "next": [],
    }
    baselines: list[tuple[Entry[MethodSpec], Any]] = [(e, e.load("config")()) for e in plan.baselines]
    for index, (method, method_config) in enumerate([(plan.method, plan.method_config), *baselines]):
        progress.stage(f"training {method.name}" + (" (baseline)" if index else ""))
        settings = train if index == 0 else settle(plan.config.train, task.recipe(method.name), baseline=True)

        def log(values: dict[str, Any], name: str = method.name) -> None:
            files.append_line(run.folder / files.METRICS, {"row": name, **values})
            _announce(plan, run, values)

        try:
            adapted, row = train_row(
                method,
                method_config,
                task,
                settings,
                seed=plan.config.seed,
                backend=backend,
                progress=progress,
                log=log,
            )
        except PeftxError as error:
            if index == 0:
                raise
            row = {"method": method.name, "error": str(error)}
            progress.note(f"{method.name} failed: {error}")
        else:
            if index == 0:
                artifacts.save(adapted, run.folder / files.ADAPTER)
                record["next"] = _next_commands(run.folder, merges=adapted.merges)
            del adapted
        record["rows"].append(row)
        record |= {
            "model": {"name": plan.model_name, **task.model_card()},
            "notes": list(dict.fromkeys(task.notes)),
            "seconds": time.perf_counter() - started,
            "status": "complete" if index == len(baselines) else "training baselines",
        }
        records.write(run.folder, record)
    return record


def _announce(plan: Plan, run: Run, values: dict[str, Any]) -> None:
    events = plan.registry.events
    if values["event"] == "step" and events.listened("peftx_step"):
        events.fire("peftx_step", run=run, step=values["step"], metrics=_figures(values, "event", "step"))
    elif values["event"] == "evaluated":
        events.fire(
            "peftx_evaluated", run=run, split=values["split"], metrics=_figures(values, "event", "split")
        )


def _figures(values: dict[str, Any], *without: str) -> dict[str, float]:
    return {name: value for name, value in values.items() if name not in without}


def _next_commands(folder: Path, *, merges: bool) -> list[str]:
    name = shlex.quote(folder.as_posix())
    commands = [f"peftx eval {name}", f"peftx predict {name} FILE..."]
    return [*commands, f"peftx export {name} --merged"] if merges else commands
