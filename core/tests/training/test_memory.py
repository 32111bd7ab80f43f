"""Peak memory: a block that comes and goes is seen."""

from __future__ import annotations

import time

import torch

from peftx.training.memory import PeakMemory

MIB = 2**20


def test_a_block_freed_before_the_end_is_seen() -> None:
    with PeakMemory("cpu") as memory:
        block = torch.ones(64 * MIB // 4)
        time.sleep(0.05)
        del block
    assert 56 * MIB < memory.bytes < 128 * MIB
    assert "resident set" in memory.how


def test_what_was_there_before_is_not_counted() -> None:
    before = torch.ones(64 * MIB // 4)
    with PeakMemory("cpu") as memory:
        time.sleep(0.02)
    assert memory.bytes < 16 * MIB
    assert before.sum() > 0


def test_an_error_inside_passes_through_and_stops_the_sampling() -> None:
    memory = PeakMemory("cpu")
    try:
        with memory:
            raise KeyError("x")
    except KeyError:
        pass
    assert memory._thread is not None and not memory._thread.is_alive()


def test_a_pause_is_left_out_and_the_measuring_goes_on_afterwards() -> None:
    with PeakMemory("cpu") as memory:
        with memory.paused():
            block = torch.ones(128 * MIB // 4)
            time.sleep(0.05)
            del block
        block = torch.ones(48 * MIB // 4)
        time.sleep(0.05)
        del block
    assert 40 * MIB < memory.bytes < 100 * MIB
