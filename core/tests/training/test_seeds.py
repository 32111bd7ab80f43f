"""Streams of random numbers: fixed, independent, and the same on every machine."""

from __future__ import annotations

import random

import numpy as np
import torch

from peftx.training.seeds import derive, generator, seed_all


def test_derived_seeds_are_fixed_for_ever() -> None:
    # a change here changes every run ever recorded
    assert derive(0, "order") == 1294077219095703350
    assert derive(7, "model") == 192079105716744168
    assert 0 <= derive(2**32 - 1, "model") < 2**63


def test_purposes_and_seeds_give_different_streams() -> None:
    streams = [(0, "order"), (1, "order"), (0, "model")]
    draws = {tuple(torch.randperm(50, generator=generator(*stream)).tolist()) for stream in streams}
    assert len(draws) == 3


def test_a_generator_leaves_the_global_one_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    torch.rand(9, generator=generator(0, "order"))
    assert torch.equal(torch.rand(3), expected)


def test_all_global_generators_are_seeded() -> None:
    def draw() -> tuple[float, float, float]:
        seed_all(11, "model")
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    first = draw()
    assert draw() == first
    seed_all(12, "model")
    assert random.random() != first[0]
