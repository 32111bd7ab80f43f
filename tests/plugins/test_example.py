"""examples/peftx-example, a stranger to this repository: installed from wheels, checked, trained and read again.

Nothing of it is in the development environment. Wheels of everything are installed into an environment of their own,
and what runs there runs away from the tree.
"""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

#: each with options that make a short training cheap
METHODS = {"vera": "--rank 32", "router": "--rank 2", "bottleneck": ""}
RUN = "--data digits --offline --baselines none --no-efficiency --train.epochs 1 --train.lr 0.01"
RUN += " --data.limit-train 400 --train.batch-size 25 --data.val-fraction 0.1 --data.test-fraction 0.1"

#: the command line, several times in one process: importing what trains takes longer than the training
COMMANDS = """
import json, sys

from peftx.cli import main

for arguments in json.loads(sys.argv[1]):
    status = main(arguments)
    if status:
        sys.exit(f"{arguments} ended with {status}")
"""
AGAIN = """
import json, sys
from pathlib import Path

import torch

from peftx import runs
from peftx.adapters import adapted
from peftx.runs.reload import rebuild, reopen
from peftx.runs.session import load_data, make_task
from peftx.tasks.scoring import evaluate

found = {}
for run in map(Path, sys.argv[1:]):
    plan, _ = reopen(run, None)
    task = make_task(plan, load_data(plan))
    model, other = (rebuild(plan, task, run)[1].eval() for _ in range(2))
    batch = next(iter(task.batches("test", 64)))
    with torch.no_grad():
        equal = torch.equal(task.forward(model, batch), task.forward(other, batch))
    with adapted(model).disabled():
        untrained = evaluate(task, model, "test", 256)
    again = runs.evaluate(run)
    found[run.name] = {
        "untrained": untrained["accuracy"],
        "trained": again.recorded["test"]["accuracy"],
        "recorded": again.recorded["test"],
        "exact": again.exact,
        "equal": equal,
    }
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def example(repository):
    return repository / "examples" / "peftx-example"


@pytest.fixture(scope="module")
def stranger(make_environment, wheelhouse, example, tmp_path_factory):
    """An environment with wheels of kernels, core, vision and the example, resolved by what they require."""
    wheels = tmp_path_factory.mktemp("example")
    environment = make_environment()
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    environment.ok(*command, "-w", wheels, example)
    sources = ["--find-links", wheelhouse, "--find-links", wheels]
    environment.install("--only-binary", ":all:", *sources, "peftx-example", "peftx-vision")
    return environment


def code_lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())


def lines_of(example, method: str) -> int:
    """Non-blank lines of a method: its file, its configuration class, its entry in the manifest."""
    package = example / "src" / "peftx_example"
    count = code_lines((package / f"{method}.py").read_text())
    config, manifest = ((package / name).read_text() for name in ("config.py", "plugin.py"))
    for text, wanted in ((config, f"class {method.title()}Config("), (manifest, f'"example.{method}"')):
        nodes = [
            node
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ClassDef | ast.Expr)
            and wanted in (ast.get_source_segment(text, node) or "")
        ]
        own = min((ast.get_source_segment(text, node) for node in nodes), key=len)
        count += code_lines(own)
    return count


def test_each_method_is_under_a_hundred_lines(example):
    readme = (example / "README.md").read_text()
    for method in METHODS:
        lines = lines_of(example, method)
        assert 40 < lines <= 100, method
        row = re.search(rf"^\| `example\.{method}` .*\| (\d+) \|$", readme, re.M)
        assert row and int(row.group(1)) == lines, (
            f"the README must say that example.{method} has {lines} lines"
        )


def test_nothing_else_knows_it(repository):
    """No word of it in the three distributions, and it is not installed with them for development."""
    listing = ["git", "grep", "-nIiE", r"peftx[-_]example|example\.(vera|router|bottleneck)"]
    places = ["core", "kernels", "plugins", "requirements-dev.txt"]
    if (repository / ".git").exists():
        outcome = subprocess.run([*listing, "--", *places], cwd=repository, capture_output=True, text=True)
        assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    else:
        pattern = re.compile(listing[-1], re.I)
        files = [file for place in places for file in (repository / place).rglob("*.py")]
        assert not [file for file in files if pattern.search(file.read_text())]


def test_it_is_a_distribution_like_any_other(repository, example):
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    core = tomllib.loads((repository / "core" / "pyproject.toml").read_text())["project"]
    major, minor = core["version"].split(".")[:2]
    assert f"peftx>={major}.{minor},<{major}.{int(minor) + 1}" in project["dependencies"]
    assert project["entry-points"]["peftx.plugins"] == {"example": "peftx_example.plugin"}
    assert (example / "LICENSE").read_bytes() == (repository / "LICENSE").read_bytes()


def test_its_parts_come_from_wheels_away_from_the_tree(stranger, repository):
    code = (
        "import peftx, peftx_example, peftx_kernels, peftx_vision as v; print(*(m.__file__ for m in (peftx, "
    )
    code += "peftx_example, peftx_kernels, v)))"
    places = stranger.ok("python", "-c", code).split()
    assert len(places) == 4 and all(place.startswith(str(stranger.folder)) for place in places)
    rows = {row["domain"]: row for row in json.loads(stranger.ok("peftx", "plugins", "--json"))}
    assert (rows["example"]["distribution"], rows["example"]["status"]) == ("peftx-example", "ok")
    assert rows["example"]["warnings"] == []


@pytest.mark.slow
def test_every_law_holds(stranger):
    """The plugin and its three methods, on two models; `peftx check example` takes one of every kind of site."""
    check = ("peftx", "check", "--fast", "example", "--case", "linear", "--case", "timm_vit", "--json")
    outcome = stranger.run(*check, PEFTX_PLUGINS="example")
    assert outcome.returncode == 0, outcome.stdout[-3000:] + outcome.stderr
    report = json.loads(outcome.stdout)
    passed = {(one["name"], one["law"]) for one in report["outcomes"] if one["state"] == "passed"}
    assert {name for name, _ in passed} == {"example", *(f"example.{method}" for method in METHODS)}
    for method in METHODS:
        for law in (
            "starts_as",
            "gradients",
            "counts",
            "detach",
            "save_load",
            "mixing",
            "checkpointing",
            "compiled",
        ):
            assert (f"example.{method}", law) in passed
    assert {("example.vera", "merge"), ("example.bottleneck", "unbound")} <= passed


@pytest.mark.slow
def test_its_own_tests_pass(stranger, example, tmp_path):
    """All but the laws that `peftx check` has judged above."""
    shutil.copytree(example / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", "tests"]
    printed = stranger.ok("python", *command, "-k", "not test_law or TrainedBank or TestPlugin", cwd=tmp_path)
    assert re.search(r"\b\d\d+ passed", printed) and "failed" not in printed


@pytest.mark.slow
def test_each_trains_on_digits_and_is_read_again(stranger, tmp_path):
    commands = [
        [*f"run vision --method example.{method} {options} {RUN} --out".split(), str(tmp_path / method)]
        for method, options in METHODS.items()
    ]
    stranger.ok("python", "-c", COMMANDS, json.dumps(commands), cwd=tmp_path)
    for method in METHODS:
        record = json.loads((tmp_path / method / "record.json").read_text())
        assert record["rows"][0]["method"] == f"example.{method}"
    found = json.loads(stranger.ok("python", "-c", AGAIN, *(tmp_path / method for method in METHODS)))
    for method in METHODS:
        one = found[method]
        assert one["exact"] and one["equal"], f"{method}: {one}"
        # in percent; of ten classes, the head that the run starts from guesses
        assert one["untrained"] < 30 and one["trained"] > one["untrained"] + 30, f"{method}: {one}"
