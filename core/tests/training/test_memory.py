"""Memory: a block that comes and goes is seen, and what an optimizer keeps is counted."""

from __future__ import annotations

import time

import torch
from torch import nn

from peftx.training.memory import PeakMemory, optimizer_bytes

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


def test_an_optimizer_keeps_its_moments() -> None:
    parameters = [nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(7))]
    optimizer = torch.optim.AdamW(parameters)
    assert optimizer_bytes(optimizer) == 0  # no step yet
    sum(p.square().sum() for p in parameters).backward()
    optimizer.step()
    assert optimizer_bytes(optimizer) == 2 * 4 * (15 + 7) + 2 * 4  # and a counter each
    momentum = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    momentum.step()
    assert optimizer_bytes(momentum) == 4 * (15 + 7)


def test_an_optimizers_storage_counts_once_and_whole_wherever_it_is() -> None:
    parameter = nn.Parameter(torch.randn(4))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    flat = torch.zeros(10)
    optimizer.state[parameter] = {"a": flat[:4], "deep": [{"b": flat[4:8]}, (torch.zeros(2),)], "step": 3}
    assert optimizer_bytes(optimizer) == 4 * 10 + 4 * 2
