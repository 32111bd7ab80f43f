"""One run, from configuration to record: puts the rooms below together.

Torch is imported only after everything that can be checked without it was checked.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftx.config.run import RunConfig, TrainConfig
from peftx.config.toml import dumps
from peftx.errors import ConfigError, DataError, Interrupted, PeftxError, RunError
from peftx.plugins.descriptors import MethodSpec
from peftx.plugins.registry import Entry, Registry
from peftx.plugins.targets import one_line
from peftx.runs import folder as files
from peftx.runs import record as records
from peftx.runs.ledger import Ledger
from peftx.runs.planning import Plan, Row, preflight, settle
from peftx.runs.result import Run, RunResult
from peftx.runs.resuming import Former, reopen_unfinished
from peftx.training.progress import Progress

if TYPE_CHECKING:
    from peftx.tasks.contract import Task
    from peftx.training.backend import Backend

__all__ = ["execute"]


def execute(
    config: RunConfig,
    registry: Registry | None = None,
    progress: Progress | None = None,
    *,
    resume: bool = False,
) -> RunResult:
    """Train the method and its baselines, score them on validation and test data, and write the run folder.

    The record stands from the start and is written again as soon as the method's own row is done and after each
    baseline; a baseline that fails is a row that says so. While a row is trained its state is written now and then, so
    a run that was stopped, however it was, goes on with `resume` and comes to the very result it would have had (on a
    CPU, bit for bit).

    Args:
        config: the run; with `resume`, its `out` is the folder of the run to go on with.
        registry: plugins; the installed ones by default.
        progress: listener.
        resume: go on with an unfinished run; a finished one is returned as it is.

    Raises:
        UserError: something about the run can be mended by its user; among them RunError when its folder cannot be
            written or continued, BusyError when another process is at work on it.
        TrainingError: the method's own training stopped itself; the record says so.
        Interrupted: SIGINT or SIGTERM came; what is needed to go on is written.
    """
    progress = progress or Progress()
    plan = preflight(config, registry)
    former = reopen_unfinished(plan) if resume else None
    if former is not None and former.complete:
        _finish_left(plan, former.folder, progress)
        return RunResult(former.folder, former.record)

    from peftx.runs.rows import rehearse
    from peftx.runs.session import load_data, make_task, threads_of
    from peftx.training.backend import Backend

    backend = Backend(config.device, config.precision)
    progress.stage(f"loading {plan.data_name}")
    data = load_data(plan)
    if former is not None:
        _same_data(former, data.fingerprint)
    task = make_task(plan, data)
    task.prepare(task.splits())
    rows = _rows(plan, task, former)
    _refuse_unscored(plan, task, rows)
    needed = rehearse(rows, task, backend)
    with _workplace(plan, former, backend) as folder:
        if former is not None:  # it may have been finished while this process was loading
            former = reopen_unfinished(plan)
            if former.complete:
                return RunResult(folder, former.record)
        files.check_space(folder, needed)
        ledger = _open(plan, task, rows, folder, former, backend, progress)
        run = Run(config, folder)
        _fire(plan, backend, "peftx_run_started", run=run, resumed=former is not None)
        try:
            with threads_of(ledger.record):
                _train_all(plan, task, rows, ledger, run, backend, progress)
        except BaseException as error:
            told = _stopped(plan, ledger, run, backend, error)
            if told is error:
                raise
            raise told from error
        if backend.is_main:
            _finish(plan, folder, progress)
        _fire(plan, backend, "peftx_run_finished", run=run, record=ledger.record)
        return RunResult(folder, ledger.record)


def _rows(plan: Plan, task: Task, former: Former | None) -> list[Row]:
    """The method first, then the baselines; settings that a former process settled stay what they were."""
    given: list[tuple[Entry[MethodSpec], Any]] = [(plan.method, plan.method_config)]
    given += [(entry, entry.load("config")()) for entry in plan.baselines]
    rows = []
    for index, (method, config) in enumerate(given):
        settled = former.train_of(method.name) if former is not None else None
        if settled is None:
            train = settle(plan.config.train, task.recipe(method.name), baseline=index > 0)
        else:
            free = plan.config.train
            train = TrainConfig(**settled | {"workers": free.workers, "checkpoint": free.checkpoint})
        rows.append(Row(method, config, train))
    return rows


def _refuse_unscored(plan: Plan, task: Task, rows: list[Row]) -> None:
    """Data without a validation split can neither stop training early nor be trained on without a test, and nothing is
    best on a test that is not made."""
    if plan.config.best_on_test and not (plan.config.test and "test" in task.splits()):
        why = f"{task.data.name} has no test split" if plan.config.test else "the test is off"
        raise ConfigError(f"--best-on-test needs the test split, and {why}: leave it out")
    if "val" in task.splits():
        return
    without = f"{task.data.name} has no validation split"
    if any(row.train.patience is not None for row in rows):
        raise ConfigError(f"{without}, and patience counts validations: leave it out")
    if not plan.config.test:
        raise ConfigError(f"{without}, so without the test split nothing would be scored: leave the test on")


@contextlib.contextmanager
def _workplace(plan: Plan, former: Former | None, backend: Backend) -> Iterator[Path]:
    """The run's folder, which no other run writes to inside the block."""
    if not backend.is_main:
        yield Path(backend.agree(None))
        return
    if former is not None:
        folder = former.folder
    else:
        folder = files.create(plan.config.out, plan.method.name, plan.data.name)
    with files.locked(folder):
        if former is None:
            files.clear(folder)
        backend.agree(str(folder))
        yield folder


def _open(
    plan: Plan,
    task: Task,
    rows: list[Row],
    folder: Path,
    former: Former | None,
    backend: Backend,
    progress: Progress,
) -> Ledger:
    from peftx.runs import provenance

    if former is not None:
        here = {**provenance.versions(plan.registry), **provenance.environment(backend)}
        ledger = Ledger(folder, former.record, writes=backend.is_main)
        then = {**former.record["versions"], **former.record["environment"]}
        changed = [
            f"{name} was {then[name]}, is {here.get(name)}"
            for name in then
            if then[name] != here.get(name) and name != "threads"  # as many are used again
        ]
        for text in changed:
            progress.note(f"{text}: what follows may differ in its last digits")
        ledger.record["resumed"] = [
            *former.record.get("resumed", ()),
            {"at": provenance.now(), "changed": changed},
        ]
        ledger.record.pop("error", None)
        for own in ledger.record["rows"][:1]:  # the folder may have been moved
            ledger.record["next"] = _next_commands(folder, merges=bool(own.get("merges")))
        ledger.save(status="training")
        return ledger
    record: dict[str, Any] = {
        "format": records.FORMAT,
        "started": provenance.now(),
        "status": "training",
        "task": plan.task.name,
        "method": plan.method.name,
        "primary": task.primary,
        "higher_is_better": task.higher_is_better,
        **_selection(task),
        "units": dict(task.units),
        "seed": plan.config.seed,
        "precision": plan.config.precision,
        "eval_batch_size": rows[0].train.eval_batch_size,
        "versions": provenance.versions(plan.registry),
        "environment": provenance.environment(backend),
        "git": provenance.git_state(),
        "data": provenance.data_card(task.data, plan.data_name),
        "model": {"name": plan.model_name, **task.model_card()},
        "input": task.input_card(),
        "reference": plan.task.spec.reference,
        "plan": [row.to_dict() for row in rows],
        "rows": [],
        "next": [],
        "notes": list(dict.fromkeys([*_of_copy(task, plan), *task.notes])),
    }
    ledger = Ledger(folder, record, writes=backend.is_main)
    ledger.save()
    if backend.is_main:  # last: with it, the folder is a run that can go on
        files.write_text(folder / files.CONFIG, dumps(plan.resolved(rows[0].train)))
    return ledger


def _selection(task: Task) -> dict[str, Any]:
    """What selected on validation, where that is another metric than the one that ranks."""
    if not task.selects:
        return {}
    return {"selects": task.selects, "selects_higher_is_better": task.selects_higher_is_better}


def _of_copy(task: Task, plan: Plan) -> list[str]:
    """What a reader of the result must know of the copy of the data that was read, if anything."""
    told = task.data.copy.note(plan.data_name) if task.data.copy is not None else ""
    return [told] if told else []


def _train_all(
    plan: Plan, task: Task, rows: list[Row], ledger: Ledger, run: Run, backend: Backend, progress: Progress
) -> None:
    from peftx.runs.rows import train_row
    from peftx.training.checkpoint import Checkpoint
    from peftx.training.stopping import Stop

    def told() -> None:
        progress.note("stopping as soon as the step under way is done; once more to stop at once")

    with Stop(told) as stop:
        for index, row in enumerate(rows):
            name = row.method.name
            if any(done["method"] == name for done in ledger.record["rows"]):
                continue  # a former process trained it
            progress.stage(f"training {name}" + (" (baseline)" if index else ""))
            try:
                figures = train_row(
                    row,
                    task,
                    plan.config,
                    ledger=ledger,
                    backend=backend,
                    progress=progress,
                    stop=stop,
                    announce=partial(_announce, plan, run, name, backend),
                    keep=index == 0,
                )
            except (Interrupted, RunError):
                raise
            except Exception as error:  # a mistake in somebody's baseline costs that row, not the others
                if index == 0:
                    raise
                cause = str(error) if isinstance(error, PeftxError) else one_line(error)
                figures = {"method": name, "error": cause}
                progress.note(f"{name} failed: {cause}")
            ledger.record["rows"].append(figures)
            if index == 0:
                ledger.record["next"] = _next_commands(run.folder, merges=figures["merges"])
            ledger.record["model"] = {"name": plan.model_name, **task.model_card()}
            ledger.record["notes"] = list(dict.fromkeys([*ledger.record["notes"], *task.notes]))
            ledger.save(status="complete" if index + 1 == len(rows) else "training")
            if backend.is_main:  # the disk holds one row's checkpoint at a time
                Checkpoint(run.folder / files.CHECKPOINT / name, 0).remove()


def _finish(plan: Plan, folder: Path, progress: Progress) -> None:
    """What comes after the last row: nothing here can harm a result that stands. The folder of checkpoints goes last:
    while it is there, this is left to do."""
    if plan.config.report:
        try:
            from peftx.report import write_run

            write_run(folder, plan.registry)
        except Exception as error:
            progress.note(f"the report was not written: {one_line(error)}")
    shutil.rmtree(folder / files.CHECKPOINT, ignore_errors=True)


def _finish_left(plan: Plan, folder: Path, progress: Progress) -> None:
    """Finish a complete run whose process was killed over it."""
    with contextlib.suppress(RunError):  # somebody is at it, or nothing may be written here
        if (folder / files.CHECKPOINT).is_dir():
            with files.locked(folder):
                _finish(plan, folder, progress)


def _stopped(plan: Plan, ledger: Ledger, run: Run, backend: Backend, error: BaseException) -> BaseException:
    """Note in the record that the run stopped, and return the error its caller is told."""
    how = f"go on with `peftx run --resume {shlex.quote(run.folder.as_posix())}`"
    changes: dict[str, Any] = {"status": "failed", "error": one_line(error)}
    if isinstance(error, Interrupted | KeyboardInterrupt | SystemExit):
        changes = {"status": "interrupted"}
    elif isinstance(error, PeftxError):
        changes["error"] = str(error)
    if isinstance(error, Interrupted):
        error = Interrupted(f"{error}; {how}")
    elif isinstance(error, RunError):
        error = type(error)(f"{error}; mend that and {how}")
    with contextlib.suppress(RunError):  # the disk may be full: what was said first is what counts
        ledger.save(**changes)
    _fire(plan, backend, "peftx_run_stopped", run=run, error=error)
    return error


def _same_data(former: Former, fingerprint: str) -> None:
    then = former.record["data"]["fingerprint"]
    if then != fingerprint:
        raise DataError(
            f"{former.folder} was begun on other data: their fingerprint was {then[:12]}, now it is {fingerprint[:12]}"
            "; give the same files, or begin a new run"
        )


def _announce(plan: Plan, run: Run, row: str, backend: Backend, values: dict[str, Any]) -> None:
    events = plan.registry.events
    if values["event"] == "step":
        if events.listened("peftx_step"):
            metrics = _figures(values, "event", "step")
            _fire(plan, backend, "peftx_step", run=run, row=row, step=values["step"], metrics=metrics)
        return
    if values["event"] == "evaluated":
        split, metrics = values["split"], _figures(values, "event", "split", "step")
    else:
        split, metrics = "val", {k[4:]: v for k, v in values.items() if k.startswith("val_")}
    if metrics:
        step = values["step"]
        _fire(plan, backend, "peftx_evaluated", run=run, row=row, split=split, step=step, metrics=metrics)


def _fire(plan: Plan, backend: Backend, event: str, **arguments: Any) -> None:
    if backend.is_main:
        plan.registry.events.fire(event, **arguments)


def _figures(values: dict[str, Any], *without: str) -> dict[str, float]:
    return {name: value for name, value in values.items() if name not in without}


def _next_commands(folder: Path, *, merges: bool) -> list[str]:
    name = shlex.quote(folder.as_posix())
    commands = [f"peftx eval {name}", f"peftx predict {name} FILE..."]
    return [*commands, f"peftx export {name} --merged"] if merges else commands
