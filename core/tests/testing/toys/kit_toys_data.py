"""Data sets with one fault each, a sound one, and what looks for them. No torch."""

from __future__ import annotations

import contextlib
import hashlib
import pickle
import random
import socket
import time
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from peftx.data import Dataset, Published, Split
from peftx.errors import DataError

FAULTS = (
    "data_config locating locating_slow locating_network offline no_pickle splits splits_unstable fingerprint "
    "fingerprint_limit classes classes_labels indexing card published"
).split()


class DataConfig(BaseModel):
    """Options of the toys' data."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    limit_train: int | None = Field(default=None, ge=1, description="use fewer")


class SilentDataConfig(DataConfig):
    """An option nobody explains."""

    noise: float = 1.0


class Points(Split[Any]):
    """Points and their classes; with a fault, negative indices are taken."""

    def __init__(self, rows: list[tuple[tuple[float, ...], int]], fault: str = "") -> None:
        self.rows, self.fault = rows, fault
        #: what another split's samples are known by, kept here as splits of one long series keep each other's
        self.beside: list[Any] = []

    def alone(self) -> Points:
        return Points(self.rows, self.fault)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        if self.fault == "indexing":
            return self.rows[index % len(self.rows)]
        if not 0 <= index < len(self.rows):
            raise IndexError(index)
        return self.rows[index]

    @property
    def labels(self) -> list[int]:
        found = [label for _, label in self.rows]
        return found[1:] + found[:1] if self.fault == "classes_labels" else found


def _rows(count: int, seed: int) -> list[tuple[tuple[float, ...], int]]:
    draw = random.Random(seed)
    return [(tuple(draw.gauss(index % 3, 1) for _ in range(8)), index % 3) for index in range(count)]


def _load(config: Any, ctx: Any, fault: str = "") -> Dataset:
    if fault == "no_pickle":
        pickle.loads(pickle.dumps(1))
    if fault == "offline":
        with contextlib.suppress(OSError):
            socket.getaddrinfo("data.example", 443)
    salt = time.monotonic_ns() if fault == "splits_unstable" else 0
    train = _rows(60, 1 + salt)[: config.limit_train]
    val = train[:20] if fault == "splits" else _rows(20, 2)
    splits = {"train": Points(train, fault), "val": Points(val, fault), "test": Points(_rows(23, 3), fault)}
    splits["train"].beside = splits["test"].rows
    digest = hashlib.sha256(repr([split.rows for split in splits.values()]).encode()).hexdigest()
    if fault == "fingerprint_limit":
        digest = "0123456789abcdef"
    elif fault == "fingerprint":
        digest = str(time.monotonic_ns())
    elif fault == "splits_unstable":
        digest = "fixed-all-the-same"
    return Dataset(
        name="kit.points" if not fault else f"kit.data_{fault}",
        splits=splits,
        classes=("a", "b") if fault == "classes" else ("a", "b", "c"),
        fingerprint=digest,
        card={"synthetic": fault != "card", "source": "drawn here", "licence": "CC0"},
        published=Published({"train": 61 if fault == "published" else 60}, source="the toys"),
    )


def _locate(config: Any, ctx: Any, fault: str = "") -> None:
    if fault == "locating":
        raise KeyError("points.bin")
    if fault == "locating_slow":
        time.sleep(1.2)
    if fault == "locating_network":
        with contextlib.suppress(OSError):
            socket.getaddrinfo("data.example", 443)
        raise DataError("kit.points: points.bin is not there; put it into the data folder")


load, locate = _load, _locate
for _fault in FAULTS:
    globals()[f"load_{_fault}"] = partial(_load, fault=_fault)
    globals()[f"locate_{_fault}"] = partial(_locate, fault=_fault)
