"""Worker processes on this machine. One that dies takes its own cell with it and nothing else.

Not `concurrent.futures`, whose pool breaks as a whole when one of its processes is killed, and not threads, since the
global random numbers and the signals belong to the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from peftx.bench.executor import Event, cores, thread_variables
from peftx.errors import RunError

__all__ = ["Processes", "how_it_ended"]

#: Seconds an idle process has to end by itself.
GRACE = 2.0


class Processes:
    """At most `jobs` worker processes with `threads` threads each (default: the cores divided among them).

    Where there are several GPUs and no device is named, workers take turns on them. `disabled`: plugins not to load.
    """

    def __init__(
        self, jobs: int, *, threads: int | None = None, device: str = "auto", disabled: tuple[str, ...] = ()
    ) -> None:
        self.jobs = jobs
        self.threads = threads or max(1, cores() // jobs)
        self._hello = json.dumps({"disabled": list(disabled)}) + "\n"
        self._gpus = visible_gpus() if device in ("auto", "cuda") else []
        self._workers: list[_Worker] = []
        self._heard: queue.SimpleQueue[tuple[_Worker, dict[str, Any] | None]] = queue.SimpleQueue()
        self._stopping = False

    @property
    def free(self) -> int:
        """How many more cells can be taken now."""
        return 0 if self._stopping else self.jobs - sum(bool(worker.cell) for worker in self._workers)

    def submit(self, job: Mapping[str, Any]) -> None:
        """Start a cell.

        Raises:
            RunError: no process can be started.
        """
        worker = next((one for one in self._workers if not one.cell), None) or self._start()
        worker.cell = job["cell"]
        with contextlib.suppress(OSError):  # it died while it was idle: its end is told by `poll`
            worker.send(json.dumps(job) + "\n")

    def poll(self, timeout: float) -> list[Event]:
        """What workers said, or how one ended.

        Raises:
            RunError: a worker ended before it could begin to work.
        """
        events: list[Event] = []
        with contextlib.suppress(queue.Empty):
            while True:
                worker, values = self._heard.get(timeout=0 if events else timeout)
                event = self._event(worker, values)
                events += [event] if event is not None else []
        return events

    def stop(self) -> None:
        """Close the workers' inputs: they write their checkpoints and end."""
        self._stopping = True
        for worker in self._workers:
            worker.hang_up()

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.end(0 if worker.cell else GRACE)
        self._workers = []

    def _start(self) -> _Worker:
        taken = {worker.number for worker in self._workers}
        number = next(n for n in range(self.jobs) if n not in taken)
        # the paths of this process, so that its plugins are found there
        given = {**thread_variables(self.threads), "PYTHONPATH": os.pathsep.join(sys.path)}
        if len(self._gpus) > 1:
            given["CUDA_VISIBLE_DEVICES"] = self._gpus[number % len(self._gpus)]
        worker = _Worker(number, given, self._heard)
        self._workers.append(worker)
        with contextlib.suppress(OSError):
            worker.send(self._hello)
        return worker

    def _event(self, worker: _Worker, values: dict[str, Any] | None) -> Event | None:
        if values is None:
            return self._ended(worker)
        kind, cell = values.pop("event"), values.get("cell", "")
        if kind == "ready":
            worker.ready = True
            return None
        if kind == "reply":
            worker.cell = ""
        return Event(kind, cell, values)

    def _ended(self, worker: _Worker) -> Event | None:
        cause = worker.cause()
        if worker in self._workers:
            self._workers.remove(worker)
        if not worker.ready and not self._stopping:
            raise RunError(f"a worker of the bench could not start: {cause}")
        return Event("died", worker.cell, cause=cause) if worker.cell else None


class _Worker:
    """One process, and the thread that listens to it. `cell`: what it is at work on."""

    def __init__(self, number: int, variables: Mapping[str, str], heard: queue.SimpleQueue[Any]) -> None:
        self.number, self.cell, self.ready = number, "", False
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "peftx.bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **variables},
                encoding="utf-8",
                # Ctrl-C at the terminal reaches the bench alone, which passes it on
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            self._errors.close()
            raise RunError(f"a worker of the bench could not start: {error.strerror or error}") from error
        threading.Thread(target=self._listen, args=(heard,), name="peftx-bench", daemon=True).start()

    def send(self, line: str) -> None:
        """Write a line to the process."""
        assert self._process.stdin is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()

    def hang_up(self) -> None:
        """End its input."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()

    def end(self, grace: float) -> None:
        """Wait for it for so many seconds, then kill it."""
        try:
            self._process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def cause(self) -> str:
        """How it ended, and the last words it wrote where it may have said why."""
        status = self._process.wait()
        said = how_it_ended(status)
        if -status in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGKILL", 9)):
            return said
        with contextlib.suppress(OSError, ValueError):
            self._errors.seek(0, os.SEEK_END)
            self._errors.seek(max(0, self._errors.tell() - 4096))
            lines = self._errors.read().decode("utf-8", "replace").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "")
            self._errors.close()
            return f"{said}, saying: {last[:200]}" if last else said
        return said

    def _listen(self, heard: queue.SimpleQueue[Any]) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, UnicodeDecodeError):
            for line in self._process.stdout:
                with contextlib.suppress(ValueError):  # half a line: its end is told in a moment
                    heard.put((self, json.loads(line)))
        heard.put((self, None))


def how_it_ended(status: int) -> str:
    """The exit status of a process in words: ``the process ended with signal 9``."""
    return f"the process ended with {f'signal {-status}' if status < 0 else f'status {status}'}"


def visible_gpus() -> list[str]:
    """How CUDA_VISIBLE_DEVICES would name the GPUs of this process; none where nobody can tell without torch."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [word.strip() for word in named.split(",") if word.strip()]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number, _ in enumerate(sorted(folder.iterdir()))] if folder.is_dir() else []
