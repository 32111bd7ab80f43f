"""A first signal is a wish, a second one an order."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from peftx.errors import Interrupted
from peftx.training.progress import Interruptible, Progress
from peftx.training.stopping import Stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_wish_and_the_second_ends_it(number: signal.Signals) -> None:
    said: list[str] = []
    before = signal.getsignal(number)
    with Stop(lambda: said.append("heard")) as stop:
        os.kill(os.getpid(), number)
        assert stop.requested and said == ["heard"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            signal.pause()
    assert signal.getsignal(number) is before


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in Stop.SIGNALS]
    with Stop():
        assert [signal.getsignal(number) for number in Stop.SIGNALS] != before
    assert [signal.getsignal(number) for number in Stop.SIGNALS] == before


def test_who_ignores_a_signal_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_another_thread_asks_for_nothing() -> None:
    seen: list[bool] = []

    def work() -> None:
        with Stop() as stop:
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_scoring_ends_at_the_wish_and_closes_its_bar() -> None:
    class Heard(Progress):
        def __init__(self) -> None:
            self.heard: list[str] = []

        def begin(self, label: str, total: int) -> None:
            self.heard.append(f"begin {label} {total}")

        def advance(self, metrics: dict[str, float] | None = None) -> None:
            self.heard.append("advance")

        def end(self, summary: str = "") -> None:
            self.heard.append("end")

    stop, heard = Stop(), Heard()
    bar = Interruptible(stop, heard)
    bar.begin("evaluate val", 2)
    bar.advance()
    stop.requested = True
    with pytest.raises(Interrupted):
        bar.advance()
    assert heard.heard == ["begin evaluate val 2", "advance", "end"]
