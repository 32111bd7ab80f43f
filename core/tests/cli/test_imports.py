"""Which modules a command imports, asserted by name in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "timm", "transformers", "torchvision", "accelerate", "sklearn", "scipy", "PIL")
PROGRAM = """
import json, sys
from peftx.plugins import api
api.ENTRY_POINT_GROUP = "peftx.plugins.of_this_test"
from peftx.cli import main
status = main(sys.argv[1:])
print("\\n" + json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


def modules_after(*arguments, folder=None):
    path = os.pathsep.join([str(folder or ""), *sys.path])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PEFTX_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment | {"PYTHONPATH": path},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    status, names = json.loads(done.stderr.splitlines()[-1])
    assert status == 0, done.stderr
    return set(names)


COMMANDS = [
    "--help",
    "--version",
    "list",
    "list --json",
    "plugins",
    "data",
    "info core.lora",
    "info toy.scale",
    "run --help",
    "run core.lora --help",
    "run toy --help",
    "run toy --start 2 --dry-run",
    "explain --help",
    "eval --help",
    "completion bash",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_heavy_is_imported(toy, command):
    names = modules_after(*command.split(), folder=toy)
    assert not names.intersection(HEAVY)
    assert not any(name.startswith("rich") for name in names), "rich is for terminals only"


@pytest.mark.parametrize("command", ["--help", "list", "plugins", "--version", "completion bash"])
def test_pydantic_waits_until_a_configuration_is_shown(toy, command):
    assert "pydantic" not in modules_after(*command.split(), folder=toy)


@pytest.mark.parametrize(
    "command",
    [
        "results",
        "results --where option.rank=8 --json",
        "results --help",
        "compare runs/a runs/b",
        "leaderboard",
        "leaderboard --published --csv",
    ],
)
def test_results_are_read_without_anything_heavy(toy, write_run, command):
    write_run(toy / "runs" / "a")
    write_run(toy / "runs" / "b", method="core.dora")
    names = modules_after(*command.split(), folder=toy)
    assert not names.intersection(HEAVY)
    assert not any(name.startswith("rich") for name in names)
    assert "pydantic" not in names or not command.startswith("results"), (
        "listing runs needs no configuration class"
    )


def test_importing_peftx_imports_nothing_heavy():
    program = "import sys, json, peftx, peftx.plugins; dir(peftx); print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not set(json.loads(done.stdout)).intersection((*HEAVY, "pydantic", "click", "rich"))


def test_missing_data_are_reported_without_torch(toy):
    program = PROGRAM.replace("status = main", "main(sys.argv[1:]); status = 0 #")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PEFTX_")}
    done = subprocess.run(
        [sys.executable, "-c", program, "run", "toy", "--data", "toy.far"],
        env=environment | {"PYTHONPATH": os.pathsep.join([str(toy), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "error: toy.far is not under" in done.stderr
    assert not set(json.loads(done.stderr.splitlines()[-1])[1]).intersection(HEAVY)
