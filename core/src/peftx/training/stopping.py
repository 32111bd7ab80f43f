"""Ctrl-C and a scheduler's SIGTERM as a wish: the step under way is finished and a checkpoint written first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

__all__ = ["Stop"]


class Stop:
    """Context manager that turns the first SIGINT or SIGTERM into `requested`; the second one ends the process's work
    at once, as it always did.

    `told` is called at the first one. Handlers can be set from the main thread only; elsewhere this asks for nothing
    and changes nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, told: Callable[[], None] | None = None) -> None:
        self.requested = False
        self._told = told
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                handler = signal.getsignal(number)
                # somebody who ignores a signal (nohup, a shell's background job) goes on ignoring it
                if handler not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            self.__exit__(None, None, None)
            raise KeyboardInterrupt
        self.requested = True
        if self._told is not None:
            self._told()
