"""docs/results.md names every key and option there is, and its example runs."""

from __future__ import annotations

import re

import click
import pytest

from peftx.cli import app
from peftx.results.where import KEYS


@pytest.fixture(scope="module")
def page(repository) -> str:
    return (repository / "docs" / "results.md").read_text()


def test_every_key_is_there(page):
    table = page.partition("| key | what it is |")[2].partition("\n\n")[0]
    named = {word for line in table.splitlines() for word in re.findall(r"`([a-z_]+)`", line.split(" | ")[0])}
    assert named == set(KEYS)


@pytest.mark.parametrize("name", ["results", "leaderboard"])
def test_options_worth_explaining_are_explained(page, name):
    command = app.cli.get_command(click.Context(app.cli), name)
    plain = {"--limit", "--data", "--model", "--help"}
    for parameter in command.params:
        for flag in parameter.opts if isinstance(parameter, click.Option) else ():
            assert flag in plain or f"`{flag}" in page or f" {flag}" in page, f"{flag} of peftx {name}"


def test_the_example_runs(page, tmp_path, monkeypatch, capsys):
    import importlib.util
    from pathlib import Path

    found = importlib.util.spec_from_file_location(
        "runs", Path(__file__).parents[2] / "core" / "tests" / "conftest.py"
    )
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.write(tmp_path / "runs" / "lora", test=97.0)
    module.write(tmp_path / "runs" / "dora", method="core.dora", test=98.5)
    code = re.search(r"<!-- example: results -->\n```python\n(.*?)```", page, re.S).group(1)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/results.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "runs/lora 0 97.0 8" and lines[-1] == "1.5"
