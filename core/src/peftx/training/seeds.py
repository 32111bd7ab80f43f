"""Random numbers: one seed per run, one independent stream per purpose.

Separate streams keep rows comparable: a method that draws more numbers while it initialises still sees the
data in the same order as the baselines beside it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

__all__ = ["derive", "generator", "random_state", "seed_all", "set_random_state"]


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


def random_state() -> dict[str, Any]:
    """The state of the global generators of python, numpy and torch (all devices), as tensors and numbers."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    found: dict[str, Any] = {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what `random_state` returned; devices that are not here are left out."""
    own = state["python"]
    random.setstate((own["version"], tuple(own["words"].tolist()), own["gauss"]))
    own = state["numpy"]
    keys = own["keys"].numpy().astype(np.uint32)
    np.random.set_state((own["name"], keys, own["position"], own["has_gauss"], own["cached"]))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for device, saved in zip(range(torch.cuda.device_count()), state.get("cuda", ()), strict=False):
            torch.cuda.set_rng_state(saved, device)
