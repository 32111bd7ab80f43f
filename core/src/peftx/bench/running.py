"""One bench, from a request to boards: puts this room together. Torch-free but for sizes under a budget."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftx.bench.checks import refuse_other_search, refuse_others
from peftx.bench.executor import Executor
from peftx.bench.grid import Grid, build_grid
from peftx.bench.loop import Loop
from peftx.bench.outcome import Outcome, outcome_of
from peftx.bench.progress import BenchProgress
from peftx.bench.request import Request
from peftx.bench.store import Store
from peftx.bench.suites import find_suite
from peftx.config.suite import Suite
from peftx.errors import Interrupted, PeftxError
from peftx.plugins import get_registry
from peftx.plugins.registry import Registry
from peftx.runs import folder as files
from peftx.training.stopping import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftx.bench.cells import Row

__all__ = ["Bench", "prepare", "run"]


@dataclass
class Bench:
    """A bench that may begin: names are resolved, options checked, and nothing in its folder contradicts it."""

    request: Request
    registry: Registry
    suite: Suite
    grid: Grid
    out: Path
    store: Store
    loop: Loop

    @property
    def rows(self) -> Sequence[Row]:
        """The rows of its grid."""
        return self.grid.rows


def prepare(
    request: Request, registry: Registry | None = None, progress: BenchProgress | None = None
) -> Bench:
    """Check a bench and look at what stands in its folder. Nothing is written and nothing trained.

    Raises:
        UnknownNameError, PluginError: a name leads nowhere.
        ConfigError: an option is wrong, or a named method does not fit.
        DataError, NetworkError: data are not there and cannot be fetched.
        ModelError: a model is unknown, or cannot be built to count parameters under a budget.
        RunError: the folder holds something else, or cells that were run with other settings.
    """
    registry = registry or get_registry(request.disabled)
    progress = progress or BenchProgress()
    name, suite = find_suite(request.suite, registry)
    grid = build_grid(name, suite, request, registry)
    if request.budget is not None:
        from peftx.bench.budget import (
            fit_rows,
        )  # imports torch, to build the models whose parameters are counted

        progress.note(f"counting parameters, to bring every method to {request.budget:,}")
        grid = dataclasses.replace(grid, rows=tuple(fit_rows(grid.rows, request.budget, registry)))
    out = (request.out or files.home() / "bench" / name).expanduser()
    store = Store(out)
    store.look(grid)
    if store.lost:
        progress.note(
            f"{store.path} was lost: runs that stand there are kept, whatever recipe or --train they were begun with "
            "where this command leaves that open"
        )
    loop = Loop(out, grid.rows, store, progress, retry=request.resume)
    refuse_other_search(out, grid.rows)
    refuse_others(out, ((loop.row_of(cell), cell) for cell in loop.cells.values()))
    return Bench(request, registry, suite, grid, out, store, loop)


def run(request: Request, registry: Registry | None = None, progress: BenchProgress | None = None) -> Outcome:
    """Carry out a bench, or go on with it, and say how every method stands.

    Raises:
        as `prepare`; Interrupted: a stop was asked for, and every run under way has written its checkpoint.
    """
    progress = progress or BenchProgress()
    return carry_out(prepare(request, registry, progress), progress)


def carry_out(bench: Bench, progress: BenchProgress) -> Outcome:
    """Train what is left of a prepared bench.

    Raises:
        RunError: its folder cannot be written, or no process can be started.
        Interrupted: a stop was asked for.
    """
    loop, store, request = bench.loop, bench.store, bench.request
    store.begin(bench.grid, bench.suite, request.command, published=request.published)
    store.put((cell, loop.states[name]) for name, cell in loop.cells.items())
    if loop.open:
        executor = make_executor(request)
        progress.begin(loop.total, loop.settled, executor.jobs)

        def told() -> None:
            progress.note("stopping: every run under way writes its checkpoint; once more to stop at once")

        try:
            with Stop(told) as stop:
                loop.run(executor, stop)
        except Interrupted as error:
            how = f"go on with `{request.command}`"
            raise Interrupted(f"{error}; {how}") from None
        finally:
            executor.close()
    outcome = outcome_of(bench)
    store.finish(outcome.told_rows(), outcome.notes, outcome.next)
    try:
        from peftx.bench.page import write_page

        outcome.page = write_page(bench.out, bench.registry)
    except PeftxError as error:
        progress.note(f"the report was not written: {error}")
    return outcome


def make_executor(request: Request) -> Executor:
    """The processes a request asks for.

    Raises:
        ConfigError: Ray is asked for and is not installed, or cannot be reached.
    """
    if request.executor == "ray":
        from peftx.bench.cluster import Cluster

        return Cluster(
            request.jobs, threads=request.threads, device=request.device, disabled=request.disabled
        )
    from peftx.bench.processes import Processes

    return Processes(
        request.jobs or 1, threads=request.threads, device=request.device, disabled=request.disabled
    )


def typed(words: Sequence[str]) -> str:
    """A command as one types it."""
    return shlex.join(["peftx", "bench", *words])
