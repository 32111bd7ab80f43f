"""How fast a device copies and multiplies: from a table where it is known, else measured by a copy and a product."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

__all__ = ["CARDS", "Card", "card_of", "measured"]


@dataclass(frozen=True, slots=True)
class Card:
    """`bandwidth`: bytes a second, read plus written. `half`, `single`: operations a second of dense products in bf16
    and fp16, and in fp32 without tf32. `cache`: bytes of the last cache. `source`: where the numbers are from."""

    name: str
    bandwidth: float
    half: float
    single: float
    cache: int
    source: str

    def rate(self, dtype: torch.dtype) -> float:
        """Operations a second of a dense product in a type."""
        return self.half if dtype.itemsize == 2 else self.single

    def seconds(self, flop: float, traffic: float, dtype: torch.dtype) -> float:
        """The roofline: no program that does so much and moves so much is faster."""
        return max(flop / self.rate(dtype), traffic / self.bandwidth)

    def bound(self, flop: float, traffic: float, dtype: torch.dtype) -> str:
        """Which side of the ridge: ``memory`` or ``arithmetic``."""
        return "memory" if traffic / self.bandwidth >= flop / self.rate(dtype) else "arithmetic"


#: part of a device's name -> what is known of it; the first that matches counts
CARDS: tuple[Card, ...] = (
    Card(
        "H200",
        4.3e12,
        790e12,
        67e12,
        60 << 20,
        "a copy and an 8192^3 product, measured; fp32 from the data sheet",
    ),
    Card(
        "H100",
        3.0e12,
        790e12,
        67e12,
        50 << 20,
        "a copy and an 8192^3 product, measured; fp32 from the data sheet",
    ),
    Card("A100", 2.0e12, 312e12, 19.5e12, 40 << 20, "data sheet, 80 GB SXM: nobody reaches all of it"),
    Card("B200", 8.0e12, 2250e12, 75e12, 126 << 20, "data sheet: nobody reaches all of it"),
)


def card_of(device: torch.device) -> Card:
    """What is known of a device, or what a copy and a product on it give."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for card in CARDS:
            if card.name in name:
                return card
    return measured(device)


def measured(device: torch.device, megabytes: int | None = None, size: int | None = None) -> Card:
    """The speeds of a device, by a copy of some megabytes and products of two square matrices."""
    gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if gpu else f"CPU, {torch.get_num_threads()} thread(s)"
    cache = torch.cuda.get_device_properties(device).L2_cache_size if gpu else 32 << 20
    megabytes = megabytes or (2048 if gpu else 256)
    one = torch.zeros(megabytes << 18, device=device)
    other = torch.ones_like(one)
    bandwidth = 2 * one.nbytes / _usual(lambda: other.copy_(one), device)
    rates = []
    n = size or (8192 if gpu else 1024)
    for dtype in (torch.bfloat16, torch.float32):
        left = torch.randn(n, n, device=device).to(dtype)
        rates.append(2 * n**3 / _usual(partial(torch.mm, left, left), device))
    source = "a copy and a product, measured just now"
    return Card(name, bandwidth, rates[0], rates[1], cache, source)


def _usual(run: Callable[[], object], device: torch.device) -> float:
    gpu = device.type == "cuda"
    clock = time.perf_counter if gpu else time.process_time
    times = []
    for _ in range(6):
        if gpu:
            torch.cuda.synchronize(device)
        start = clock()
        run()
        if gpu:
            torch.cuda.synchronize(device)
        times.append(clock() - start)
    return median(times[1:])
