"""Random numbers: one seed per run, one independent stream per purpose.

Separate streams keep rows comparable: a method that draws more numbers while it initialises still sees the
data in the same order as the baselines beside it.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

__all__ = ["derive", "generator", "seed_all"]


def derive(seed: int, purpose: str) -> int:
    """Return a 63-bit seed for `purpose`, a fixed function of both arguments on every platform."""
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str) -> torch.Generator:
    """Return a CPU generator of its own for `purpose`."""
    return torch.Generator().manual_seed(derive(seed, purpose))


def seed_all(seed: int, purpose: str = "") -> None:
    """Seed the global generators of python, numpy and torch (all devices)."""
    value = derive(seed, purpose)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)
