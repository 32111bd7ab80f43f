"""What `peftx new` writes, as its author has it: made by an installed peftx, built as a wheel, tested and checked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def hello(bench) -> tuple[Path, Path]:
    """A new plugin with a second method: its folder, and where its wheel is installed."""
    work = bench.work / "new"
    work.mkdir()
    bench.environment.ok("peftx", "new", "plugin", "hello", cwd=work)
    folder = work / "peftx-hello"
    bench.environment.ok("peftx", "new", "method", "shift", cwd=folder)
    wheels = work / "wheels"
    built = bench.environment.pip(
        "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation", "-w", wheels, folder
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = wheels.glob("*.whl")
    target = work / "installed"
    bench.environment.install("--no-deps", "--target", target, wheel)
    return folder, target


def test_its_methods_are_there(bench, hello):
    _, target = hello
    names = [method["name"] for method in bench.json("list", "hello", plugins=[target])["methods"]]
    assert names == ["hello.gain", "hello.shift"]
    rows = bench.json("plugins", plugins=[target])
    (row,) = (row for row in rows if row["domain"] == "hello")
    assert (row["status"], row["warnings"]) == ("ok", [])


@pytest.mark.slow
def test_its_own_tests_pass_at_once(bench, hello):
    folder, target = hello
    # away from the source: what is tested is the wheel
    command = [
        "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "gain or plugin",
        folder / "tests",
    ]
    done = bench.environment.run(*command, PYTHONPATH=str(target))
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout and "failed" not in done.stdout


@pytest.mark.slow
def test_the_kit_passes_it(bench, hello):
    _, target = hello
    done = bench.peftx("check", "hello", "--fast", "--case", "linear", "--json", plugins=[target])
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] and report["counts"]["failed"] == 0
    assert {one["name"] for one in report["outcomes"]} == {"hello", "hello.gain", "hello.shift"}
    assert report["counts"]["passed"] > 40


def test_a_fault_put_into_it_is_found(bench, hello):
    _, target = hello
    file = target / "peftx_hello" / "shift.py"
    text = file.read_text()
    try:
        file.write_text(text.replace("return site.shape[0]", "return site.shape[0] + 1"))
        done = bench.peftx("check", "hello.shift", "--case", "linear", "--law", "counts", plugins=[target])
    finally:
        file.write_text(text)
    assert done.returncode == 1
    assert "FAILED  hello.shift: counts on linear: explain promised adapter = " in done.stdout
    assert os.linesep + "1 failed: counts to be mended" in done.stdout
