"""How long the command line takes to start: CPU seconds (user + system) of a fresh process, median of
several.

    python benchmarks/startup.py [--repeats 9] [--json]

Figures are printed, never asserted: a busy machine is slower. What must not be imported is asserted by tests.
Budgets: `--help` and `list` 0.15 s, `run X --help` 0.3 s.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

BUDGETS = {
    "--help": 0.15,
    "list": 0.15,
    "plugins": 0.15,
    "data": None,
    "info core.lora": 0.3,
    "run core.lora --help": 0.3,
    "run vision --help": 0.3,
    "run vision --dry-run": None,
}


def cpu_of(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of one process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    """Measure every command, interleaved so that a busy moment hits all alike."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    commands = {"(bare interpreter)": [sys.executable, "-c", "pass"]}
    commands |= {name: [sys.executable, "-m", "peftx", *name.split()] for name in BUDGETS}
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(chosen.repeats):
        for name, command in commands.items():
            seen[name].append(cpu_of(command))
    rows = [
        {
            "command": name,
            "cpu_s": round(statistics.median(cpu for cpu, _ in values), 3),
            "wall_s": round(statistics.median(wall for _, wall in values), 3),
            "budget_s": BUDGETS.get(name),
        }
        for name, values in seen.items()
    ]
    if chosen.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'command':<24}{'CPU s':>8}{'wall s':>8}{'budget':>8}")
    for row in rows:
        budget = row["budget_s"] if row["budget_s"] is not None else "-"
        print(f"{row['command']:<24}{row['cpu_s']:>8.3f}{row['wall_s']:>8.3f}{budget:>8}")


if __name__ == "__main__":
    main()
