"""A worker process: reads jobs from stdin, a JSON line each, and writes what becomes of them to stdout.

The parent asks for a stop by closing stdin, and a parent that was killed closes it as well; a run under way then writes
its checkpoint, as after Ctrl-C. Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from typing import Any, NoReturn, TextIO

from peftx.training.progress import Progress

__all__ = ["main"]

#: Seconds between two messages about the progress of one cell.
PAUSE = 0.5


def main() -> NoReturn:
    """Work until stdin ends."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    # a parent in the background ignores Ctrl-C, and its children would; here it is how a run is stopped
    signal.signal(signal.SIGINT, signal.default_int_handler)
    status = 0
    try:
        _work(sys.stdin, channel)
    except KeyboardInterrupt:
        pass
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stderr.flush()
        # threads of libraries may hang at the end of a process that was interrupted, and all that counts is written
        os._exit(status)


def _work(jobs: TextIO, channel: TextIO) -> None:
    inbox: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()

    def listen() -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in jobs:
                inbox.put(json.loads(line))
        inbox.put(None)
        _interrupt()

    def say(**values: Any) -> None:
        # a bench that was killed hears nothing more, which is no fault of the run: its end of stdin says to stop
        with contextlib.suppress(OSError):
            channel.write(json.dumps(values) + "\n")

    settings = json.loads(jobs.readline() or "{}")
    threading.Thread(target=listen, name="peftx-bench-jobs", daemon=True).start()
    from peftx.bench.job import carry_out, warm_up
    from peftx.plugins.manager import get_registry

    registry = get_registry(tuple(settings.get("disabled", ())))
    warm_up()
    say(event="ready")
    while (job := inbox.get()) is not None:
        say(event="reply", **carry_out(job, registry, _Told(job["cell"], say)))


def _interrupt() -> None:
    """Ctrl-C for the main thread, which may be waiting for a disk or a network."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        _thread.interrupt_main()


class _Told(Progress):
    """Sends the parent what is worth a bar, not every step."""

    def __init__(self, cell: str, say: Any) -> None:
        self._cell, self._say = cell, say
        self._done = self._total = 0
        self._said = 0.0

    def stage(self, text: str) -> None:
        self._say(event="stage", cell=self._cell, text=text)

    def begin(self, label: str, total: int) -> None:
        self._done, self._total = 0, total

    def advance(self, metrics: dict[str, float] | None = None) -> None:
        self._done += 1
        if time.monotonic() - self._said >= PAUSE:
            self._said = time.monotonic()
            self._say(event="moved", cell=self._cell, done=self._done, total=self._total)


if __name__ == "__main__":
    main()
