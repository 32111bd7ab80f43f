"""SNELL and SNELLA on small images beside a tuned head and LoRA at equal trainable parameters.

    python benchmarks/snella_scores.py [--protocol full|few|photographs] [--seeds 0 1 2] [--only METHOD ...] [--json]

Every row searches the same learning rates with the first seed, on validation accuracy (ties: the lower validation
loss); the rate chosen is then run with the other seeds and scored on test. The test scores of other rates are never
looked at. The split is the same for all seeds, which differ in initialisation, data order and head. LoRA adapts the
same six maps of every block as SNELL does (queries, keys and values apart), with the same rank.

`full` trains on all 1,079 training digits, `few` on 100 of them, which is where the pretrained trunk and the adapter
have to do the work. `photographs` reads any folder of small images (`--images`) and trains on 2,000 of them: far from
the strokes the trunk was made on, so there is something to adapt. Finished runs in `--out` are read, not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch

from peftx.config.run import RunConfig
from peftx.runs import execute

RATES = (3e-3, 1e-2, 3e-2, 1e-1)
SIX = ["attention.q", "attention.k", "attention.v", "attention.out", "mlp.up", "mlp.down"]
ROWS: dict[str, dict[str, Any]] = {
    "core.head": {"name": "core.head"},
    "core.lora": {"name": "core.lora", "rank": 8, "targets": SIX},
    "vision.snell": {"name": "vision.snell", "rank": 8},
    "vision.snella": {"name": "vision.snella", "rank": 8},
}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "full": {"data": {}, "train": {"epochs": 8, "batch_size": 64}},
    "few": {"data": {"limit_train": 100}, "train": {"epochs": 60, "batch_size": 50}},
    "photographs": {"data": {"limit_train": 2000}, "train": {"epochs": 8, "batch_size": 64}},
}


def one(protocol: str, data: str, row: str, rate: float, seed: int, out: Path) -> dict[str, Any]:
    """The record's row of one run, trained now or read from its folder."""
    folder = out / protocol / row / f"{rate:g}" / str(seed)
    record = folder / "record.json"
    if not record.is_file() or not json.loads(record.read_text()).get("rows"):
        settings = PROTOCOLS[protocol]
        config = RunConfig.model_validate(
            {
                "task": {"name": "vision.classification"},
                "method": ROWS[row],
                "data": {"name": data, **settings["data"]},
                "train": {**settings["train"], "lr": rate},
                "seed": seed,
                "device": "cpu",
                "out": folder,
                "offline": True,
                "baselines": [],
            }
        )
        try:
            execute(config)
        except Exception as error:
            # a rate that diverges is a result: this row does not choose it
            return {"error": str(error), "rate": rate, "seed": seed}
    found: dict[str, Any] = json.loads(record.read_text())["rows"][0]
    return found | {"rate": rate, "seed": seed}


def choose(runs: list[dict[str, Any]]) -> float | None:
    """The rate with the best validation accuracy, then the lowest validation loss; one that failed is out."""
    done = [run for run in runs if "error" not in run]
    if not done:
        return None
    best = max(done, key=lambda run: (run["metrics"]["val"]["accuracy"], -run["metrics"]["val"]["loss"]))
    return float(best["rate"])


def summary(protocol: str, data: str, row: str, seeds: list[int], out: Path) -> dict[str, Any]:
    """One line of the table: the rate chosen on validation, and the test scores at that rate alone."""
    search = [one(protocol, data, row, rate, seeds[0], out) for rate in RATES]
    rate = choose(search)
    if rate is None:
        return {"row": row, "rate": None}
    chosen = [one(protocol, data, row, rate, seed, out) for seed in seeds]
    test = [run["metrics"]["test"]["accuracy"] for run in chosen]
    return {
        "row": row,
        "rate": rate,
        "trainable": chosen[0]["trainable"],
        "val": [run["metrics"]["val"]["accuracy"] for run in chosen],
        "test": test,
        "test_mean": statistics.mean(test),
        "test_sd": statistics.stdev(test) if len(test) > 1 else 0.0,
        "seconds": statistics.median(run["seconds"] for run in chosen),
        "validation_by_rate": {
            f"{run['rate']:g}": run["metrics"]["val"]["accuracy"] for run in search if "error" not in run
        },
    }


def main() -> None:
    """Train what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="full")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--out", type=Path, default=Path("runs/snella_scores"))
    parser.add_argument("--images", type=Path, help="folder of train/CLASS and test/CLASS, for photographs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = f"vision.imagefolder:{options.images}" if options.protocol == "photographs" else "vision.digits"
    table = []
    for row in options.only:
        table.append(summary(options.protocol, data, row, options.seeds, options.out))
        if not options.json:
            print(_line(table[-1]), flush=True)
    if options.json:
        print(json.dumps(table, indent=1))


def _line(row: dict[str, Any]) -> str:
    if row["rate"] is None:
        return f"{row['row']:14} every rate failed"
    seeds = " ".join(f"{value:.2f}" for value in row["test"])
    val = " ".join(f"{rate}: {value:.2f}" for rate, value in row["validation_by_rate"].items())
    return (
        f"{row['row']:14} lr {row['rate']:<6g} trained {row['trainable']:>8,}  test {row['test_mean']:.2f} "
        f"± {row['test_sd']:.2f} ({seeds})  {row['seconds']:.0f} s  val by rate: {val}"
    )


if __name__ == "__main__":
    main()
