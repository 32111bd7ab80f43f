"""The package in docs/writing-a-plugin.md, taken from the page, installed and used as a reader would."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def package(repository, tmp_path_factory) -> Path:
    """The folder that a reader has after copying every file of the guide."""
    page = (repository / "docs" / "writing-a-plugin.md").read_text()
    files = re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    folder = tmp_path_factory.mktemp("guide") / "peftx-mine"
    for name, text in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    listed = re.findall(
        r"^    (\S+)", re.search(r"```\npeftx-mine/\n(.*?)```", page, re.DOTALL).group(1), re.MULTILINE
    )
    assert sorted(listed) == sorted(name for name, _ in files)
    return folder


@pytest.fixture(scope="module")
def environment(make_environment, package):
    environment = make_environment()
    environment.install("--no-deps", "./kernels", "./core", "./plugins/vision", package)
    return environment


def test_guide_package_is_listed_and_described(environment):
    assert "mine.scale" in environment.ok("peftx", "list")
    plugins = json.loads(environment.ok("peftx", "plugins", "--json"))
    assert "peftx-mine" in json.dumps(plugins)
    described = environment.ok("peftx", "info", "mine.scale")
    assert "scale_bias" in described or "scale-bias" in described
    assert "mine.scale" not in environment.ok("peftx", "--no-plugin", "mine", "list")


def test_guide_package_passes_its_own_tests(environment, package):
    # of the laws, those on two models: all of them run where a method is checked
    command = [
        "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "linear or gain or Plugin",
        "tests",
    ]
    outcome = environment.run(*command, cwd=package)
    assert outcome.returncode == 0, outcome.stdout
    passed = re.search(r"(\d+) passed", outcome.stdout)
    assert passed and int(passed[1]) > 25 and "failed" not in outcome.stdout


def test_guide_package_trains_through_the_command_line(environment):
    arguments = "--method mine.scale --data digits --epochs 1 --baselines [] --offline".split()
    arguments += "--data.limit-train 64 --data.val-fraction 0.1 --data.test-fraction 0.1".split()
    environment.ok("peftx", "run", "vision", *arguments, "--out", environment.folder / "out")
    record = (environment.folder / "out" / "record.json").read_text()
    assert "mine.scale" in record and "peftx-mine" in record
