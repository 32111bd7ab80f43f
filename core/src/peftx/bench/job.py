"""One cell, carried out: the same for a worker process here and for one of a cluster."""

from __future__ import annotations

import gc
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftx.bench.cells import Cell
from peftx.bench.states import DIVERGED, DONE, FAILED
from peftx.config.run import RunConfig
from peftx.errors import BusyError, DivergedError, Interrupted, PeftxError, RunError
from peftx.plugins.targets import one_line
from peftx.runs import folder as files

if TYPE_CHECKING:
    from peftx.plugins.registry import Registry
    from peftx.training.progress import Progress

__all__ = ["BUSY", "INTERRUPTED", "carry_out", "job_of", "warm_up"]

BUSY, INTERRUPTED = "busy", "interrupted"


def job_of(cell: Cell, out: Path) -> dict[str, Any]:
    """What a worker is told of a cell, as JSON holds it."""
    return {
        "cell": cell.folder,
        "out": str(out / cell.folder),
        "search": cell.search,
        "config": dict(cell.config),
    }


def carry_out(job: Mapping[str, Any], registry: Registry, progress: Progress | None = None) -> dict[str, Any]:
    """Run a cell, or go on with it, and say what became of it: ``cell``, ``state`` (done, failed, diverged, busy,
    interrupted), ``cause``, and ``trace`` where the cause is nothing a user can mend.

    Never raises: one cell must not end the others.
    """
    said = {"cell": job["cell"], "state": DONE, "cause": "", "trace": ""}
    try:
        _run(job, registry, progress)
    except BusyError:
        said["state"] = BUSY
    except (Interrupted, KeyboardInterrupt):
        said["state"] = INTERRUPTED
    except PeftxError as error:
        diverged = job["search"] and isinstance(error, DivergedError)
        said |= {"state": DIVERGED if diverged else FAILED, "cause": str(error)}
    except Exception as error:
        said |= {"state": FAILED, "cause": one_line(error), "trace": traceback.format_exc()}
    finally:
        _tidy()
    return said


def _run(job: Mapping[str, Any], registry: Registry, progress: Progress | None) -> None:
    from peftx.runs import execute

    config = RunConfig.model_validate({**job["config"], "out": job["out"]})
    assert config.out is not None
    resume = files.is_run(config.out)
    try:
        execute(config, registry, progress, resume=resume)
    except BusyError:
        raise
    except RunError:
        if resume or not files.is_run(config.out):
            raise
        # another bench made this folder a run after it was looked at
        execute(config, registry, progress, resume=True)


def warm_up() -> None:
    """Load what the first training of a process loads, so that the first cell is not charged with it.

    torch imports its compiler when the first optimizer is made: 150 MiB in no way the method's.
    """
    import torch

    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


def _tidy() -> None:
    """Leave the next cell the memory it would have found in a new process."""
    gc.collect()
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
