"""What carries cells out: the contract between the bench's loop and its processes, here or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Event", "Executor", "cores", "thread_variables"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something a process said, or that it is no more.

    `kind`: reply (what `peftx.bench.job.carry_out` returned), died (`cause` says how), stage or moved (progress).
    """

    kind: str
    cell: str
    values: Mapping[str, Any] = field(default_factory=dict)
    cause: str = ""


class Executor(Protocol):
    """Processes that carry out one cell each at a time. `jobs`: so many at once at most."""

    jobs: int

    @property
    def free(self) -> int:
        """How many more cells can be taken now."""

    def submit(self, job: Mapping[str, Any]) -> None:
        """Start a cell; only while `free`.

        Raises:
            RunError: no process can be started.
        """

    def poll(self, timeout: float) -> list[Event]:
        """What was said since the last call; waits for at most `timeout` seconds for the first word.

        Raises:
            RunError: processes cannot be started, or their cluster is gone.
        """

    def stop(self) -> None:
        """Ask all processes to write their checkpoints and end; `poll` goes on telling of them."""

    def close(self) -> None:
        """End all processes at once. Idle ones have nothing to lose."""


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_variables(threads: int) -> dict[str, str]:
    """Environment that limits every numeric library to so many threads; read when they load."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    return {name: str(threads) for name in names} | {"OMP_WAIT_POLICY": "PASSIVE"}
