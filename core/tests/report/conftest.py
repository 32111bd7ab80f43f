"""Folders of runs and sources of benches as the rooms below write them, made by hand: no torch, no training.

Their figures come from a seeded generator and mean nothing.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftx.report import BenchSource, Board, Standing

METHODS = ("core.lora", "core.head", "core.full")
COSTS = {"core.lora": (66_826, 0.01), "core.head": (1_290, 0.03), "core.full": (809_098, 0.001)}


def record_of(methods: tuple[str, ...] = METHODS, classes: int = 10, seed: int = 0) -> dict[str, Any]:
    """A complete record of a classification."""
    draw = random.Random(seed)
    return {
        "format": 1,
        "started": "2026-03-01T10:15:00+00:00",
        "status": "complete",
        "task": "toy.classification",
        "method": methods[0],
        "primary": "accuracy",
        "higher_is_better": True,
        "units": {"accuracy": "%", "accuracy_top5": "%", "loss": "nats"},
        "seed": seed,
        "precision": "fp32",
        "eval_batch_size": 256,
        "versions": {"python": "3.11.7", "peftx": "0.1.0", "torch": "2.8.0"},
        "environment": {"device": "cpu", "device_name": "x86_64", "threads": 1, "platform": "Linux"},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True},
        "data": {
            "name": "toy.small",
            "sizes": {"train": 1079, "val": 359, "test": 359},
            "classes": [f"class {i}" for i in range(classes)],
            "fingerprint": "f00d" * 16,
            "card": {
                "source": "https://example.org/data, as shipped",
                "licence": "CC0",
                "synthetic": True,
                "verified": False,
            },
        },
        "model": {"name": "toy.net", "parameters": 809_098},
        "rows": [row_of(method, draw) for method in methods],
        "next": ["peftx eval runs/toy", "peftx predict runs/toy FILE..."],
        "notes": ["the head was made anew for 10 classes"],
        "seconds": 187.3,
    }


def row_of(method: str, draw: random.Random) -> dict[str, Any]:
    """A row that is done."""
    trainable, rate = COSTS.get(method, (50_000, 0.005))
    accuracy = 95 + 4 * draw.random()
    scores = {
        split: {
            "accuracy": accuracy + shift,
            "loss": 0.05 + 0.1 * draw.random(),
            "n": 359,
            "ece": draw.random() / 50,
            "mce": draw.random() / 5,
            "ace": draw.random() / 50,
            "brier": draw.random() / 20,
        }
        for split, shift in (("val", 0.4), ("test", 0.0))
    }
    return {
        "method": method,
        "options": {"rank": 8, "targets": ["attention", "mlp"]} if method == "core.lora" else {"targets": []},
        "train": {"epochs": 8, "batch_size": 64, "lr": rate, "head_lr": None},
        "trainable": trainable,
        "stored_bytes": trainable * 4 + 48,
        "peak_memory_bytes": 80_000_000 + trainable * 150,
        "peak_memory_how": "peak resident set",
        "seconds": 40 + 20 * draw.random(),
        "steps": 136,
        "epochs": 8,
        "best_epoch": 6,
        "selected_on": "val accuracy",
        "stopped_early": False,
        "train_loss": 0.02,
        "metrics": scores,
        "efficiency": {
            "saved_bytes": 20_000_000 + trainable,
            "saved_batch": 64,
            "optimizer_bytes": trainable * 8,
            "forward_overhead": 1.0 + draw.random() / 5,
            "merged_overhead": 1.0 if method == "core.lora" else None,
            "switch_seconds": 0.002,
        },
    }


def lines_of(method: str, steps: int, epochs: int = 8, seed: int = 1) -> list[dict[str, Any]]:
    """The lines of one row's training, with a loss that falls and one spike."""
    draw, found = random.Random(f"{method}{seed}"), []
    each = max(1, steps // epochs)
    for step in range(1, steps + 1):
        loss = 2.3 * math.exp(-5 * step / steps) + 0.02 + 0.1 * draw.random() ** 3
        loss = 9.75 if step == steps // 2 + 3 else loss
        lr = 0.01 * (1 + math.cos(math.pi * step / steps)) / 2
        found.append({"row": method, "event": "step", "step": step, "loss": loss, "lr": lr})
        if step % each == 0:
            values = {
                "val_accuracy": 90 + 9 * step / steps,
                "val_loss": 0.4 - 0.3 * step / steps,
                "val_n": 359,
            }
            epoch = {"row": method, "event": "epoch", "epoch": step // each, "step": step, "train_loss": loss}
            found.append(epoch | values)
    return found


def details_of(classes: int = 10, n: int = 359, seed: int = 2) -> dict[str, Any]:
    """Bins and confusion of one split, consistent with each other."""
    draw = random.Random(seed)
    count, sure, right = [0] * 15, [0.0] * 15, [0] * 15
    matrix = [[0] * classes for _ in range(classes)]
    for index in range(n):
        confidence = min(0.9999, max(0.2, draw.betavariate(9, 0.8)))
        hit, true = draw.random() < confidence, index % classes
        place = min(14, int(confidence * 15))
        count[place] += 1
        sure[place] += confidence
        right[place] += hit
        wrong = (true + 1 + draw.randrange(max(1, min(3, classes - 1)))) % classes
        matrix[true][true if hit else wrong] += 1
    return {
        "n": n,
        "reliability": {
            "edges": [i / 15 for i in range(16)],
            "count": count,
            "confidence": [s / c if c else None for s, c in zip(sure, count, strict=True)],
            "accuracy": [r / c if c else None for r, c in zip(right, count, strict=True)],
        },
        "confusion": matrix,
    }


def write_folder(
    folder: Path,
    record: Mapping[str, Any] | None = None,
    *,
    steps: int = 136,
    details: bool = True,
    metrics: str | None = None,
) -> Path:
    """A run's folder; `metrics` replaces the text of metrics.jsonl."""
    record = record_of() if record is None else record
    methods = [row["method"] for row in record["rows"]]
    classes = len(record["data"]["classes"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "config.toml").write_text('seed = 0\n\n[method]\nname = "core.lora"\nrank = 8\n')
    lines = [json.dumps(line) for method in methods for line in lines_of(method, steps)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n" if metrics is None else metrics)
    if details:
        rows = {method: {split: details_of(classes) for split in ("val", "test")} for method in methods}
        (folder / "details.json").write_text(json.dumps({"format": 1, "rows": rows}))
    return folder


def board_of(data: str, methods: tuple[str, ...], seeds: int = 3, seed: int = 3) -> Board:
    """A board with ranks, a row that failed in part, one that failed, and a published one."""
    draw, found = random.Random(f"{data}{seed}"), []
    for index, method in enumerate(methods):
        values = tuple(
            99.0 - 3.1 * abs(index - 4.5) ** 1.4 / 8 - 0.4 * draw.random() + draw.gauss(0, 0.25)
            for _ in range(seeds)
        )
        mean = math.fsum(values) / seeds
        sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (seeds - 1)) if seeds > 1 else None
        size = int(1_290 * 2.6**index)
        found.append(
            Standing(
                method=method,
                label=method,
                seeds=tuple(range(seeds)),
                values=values,
                mean=mean,
                sd=sd,
                trainable=size,
                stored_bytes=4 * size,
                peak_memory_bytes=int(80e6 + 9e6 * draw.random() * index),
                saved_bytes=int(20e6 + 3e6 * index),
                seconds=30 + 12 * draw.random() + 3 * index,
                lr=(0.01,),
                failed=int(index == 1),
                cause="after step 12 the loss is nan" if index == 1 else "",
                folders=tuple(f"runs/{data}/{method}/seed{k}" for k in range(seeds)),
            )
        )
    ranked = sorted(found, key=lambda s: -(s.mean or 0))
    standings = [replace(s, rank=i + 1, pareto=i in (0, 2)) for i, s in enumerate(ranked)]
    standings.append(
        Standing("core.broken", "core.broken", failed=seeds, cause="no site of the model matched")
    )
    paper = Standing(
        "Full tuning", "Full tuning", mean=98.6, published="A. Author 2021, table 2", trainable=85_800_000
    )
    notes = ("not all rows have the same seeds",)
    return Board(
        "toy.classification", data, "toy.net", "accuracy", "%", True, "test", (*standings, paper), notes
    )


def bench_of(boards: int = 2) -> BenchSource:
    """A bench with a search and cells in every state."""
    methods = ("core.lora", "core.dora", "core.head", "core.full", "core.bitfit", "core.rslora", "core.shira")
    names = ["toy.small", "toy.small limit_train=100", "toy.other"][:boards]
    made = tuple(board_of(name, methods) for name in names)
    cells, rows, records = [], [], {}
    for board in made:
        for standing in board.standings:
            if standing.published:
                continue
            base = {
                "data": board.data,
                "model": board.model,
                "method": standing.method,
                "label": standing.label,
            }
            for k in range(3):
                folder = f"{board.data}/{standing.method}/seed{k}"
                state = (
                    {"state": "done", "value": standing.values[k], "seconds": 33.5} if standing.values else {}
                )
                state = state or {"state": "failed", "cause": standing.cause}
                cells.append(base | {"folder": folder, "seed": k, "lr": 0.01, "search": False} | state)
                records[folder] = record_of((standing.method,), seed=k)
            found = [
                {"rate": rate, "value": 97.0 - abs(math.log10(rate) + 2), "state": "done", "cause": ""}
                for rate in (0.001, 0.01)
            ]
            found.append(
                {"rate": 0.1, "value": None, "state": "diverged", "cause": "after step 3 the loss is nan"}
            )
            rows.append(
                base | {"folder": f"{board.data}/{standing.method}", "lr": 0.01, "search": found, "off": ""}
            )
    cells[-1] |= {"state": "waiting"}
    bench = {
        "format": 1,
        "suite": "toy.quick",
        "about": "Every method on small data, three seeds; the learning rate is searched on validation alike for all.",
        "task": "toy.classification",
        "command": "peftx bench toy/quick --jobs 2",
        "started": "2026-03-01T10:15:00+00:00",
        "options": {"seeds": [0, 1, 2], "search": [0.001, 0.01, 0.1], "train": {"epochs": 8}, "test": True},
        "cells": cells,
        "rows": rows,
        "notes": ["core.broken failed: no site of the model matched"],
        "next": ["peftx leaderboard --root runs/bench/toy.quick"],
    }
    return BenchSource(Path("runs/bench/toy.quick"), bench, made, records)


@pytest.fixture
def record() -> dict[str, Any]:
    return record_of()


@pytest.fixture
def make_record() -> Callable[..., dict[str, Any]]:
    return record_of


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a run's folder under the test's own."""

    def make(record: Mapping[str, Any] | None = None, name: str = "run", **options: Any) -> Path:
        return write_folder(tmp_path / name, record, **options)

    return make


@pytest.fixture
def make_bench() -> Callable[..., BenchSource]:
    return bench_of


@pytest.fixture
def make_details() -> Callable[..., dict[str, Any]]:
    return details_of
