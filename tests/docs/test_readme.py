"""The README says what is so: its commands, its example, its tables and its links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from peftx.plugins import CATALOGUE, get_registry


@pytest.fixture(scope="module")
def readme(repository) -> str:
    return (repository / "README.md").read_text()


def marked_block(text: str, mark: str) -> str:
    """The fenced block below `<!-- mark -->`."""
    found = re.search(rf"<!-- {re.escape(mark)} -->\n```\w+\n(.*?)\n```\n", text, re.DOTALL)
    assert found, f"README.md has no block marked {mark!r}"
    return found.group(1)


def test_two_commands_for_a_fresh_machine(readme, distributions, repository):
    run, test = marked_block(readme, "command: run"), marked_block(readme, "command: test")
    assert "\n" not in run and "\n" not in test
    folders = {f"./{one.folder.relative_to(repository).as_posix()}" for one in distributions}
    # people install the packs they need: core, its kernels, and the pack of the command
    assert folders & set(run.split()) == {"./kernels", "./core", "./plugins/vision"} <= folders
    assert "peftx run vision.snella --data digits" in run
    assert "requirements-dev.txt" in test and test.endswith("-m pytest")


def test_example_is_the_file_and_ten_lines(readme, repository):
    example = marked_block(readme, "example: quickstart")
    docstring, _, code = (repository / "examples" / "quickstart.py").read_text().partition("\n\n")
    assert docstring.startswith('"""')
    assert code.strip() == example
    statements = [line for line in example.splitlines() if line and not line.startswith("import")]
    assert len(statements) <= 10


def test_example_runs(repository, tmp_path):
    command = [sys.executable, repository / "examples" / "quickstart.py"]
    outcome = subprocess.run(
        list(map(str, command)), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "qkv" in outcome.stdout
    assert {file.name for file in (tmp_path / "my-adapter").iterdir()} >= {
        "adapter.json",
        "adapter.safetensors",
    }


def test_method_table_is_the_registry(readme):
    rows = set(re.findall(r"^\| \[?`([a-z0-9_]+\.[a-z0-9_]+)`", readme, re.MULTILINE))
    ours = {name for name in get_registry().methods if name.partition(".")[0] in {"core", *CATALOGUE}}
    assert rows == ours


def test_pack_table_is_the_catalogue(readme):
    rows = dict(re.findall(r"^\| `peftx-(\w+)` \|.*\| (\w+)", readme, re.MULTILINE))
    states = {"available": "ready", "planned": "planned"}
    assert {domain: rows.get(domain) for domain in CATALOGUE} == {
        domain: states[pack.state] for domain, pack in CATALOGUE.items()
    }


def test_every_method_has_a_page(repository):
    for name in get_registry().methods:
        domain, _, method = name.partition(".")
        if domain in {"core", *CATALOGUE}:
            page = repository / "docs" / "methods" / domain / f"{method}.md"
            assert page.is_file(), f"{name} has no page {page.relative_to(repository)}"
            assert f"{domain}.{method}" in page.read_text().splitlines()[0]
            assert f"({domain}/{method}.md)" in (repository / "docs/methods/README.md").read_text()


def test_commands_shown_exist(readme):
    shown = set(re.findall(r"^    peftx (\w+)", readme, re.MULTILINE))
    shown |= set(
        re.findall(r"\| (\w+)", next(line for line in readme.splitlines() if "peftx list |" in line))
    )
    outcome = subprocess.run(
        [sys.executable, "-c", "from peftx.cli import main; main()", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    known = set(re.findall(r"^\s+(\w+)\s", outcome.stdout, re.MULTILINE))
    assert shown >= {"run", "eval", "predict", "list", "doctor"}
    assert shown <= known


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"])
def test_links_lead_somewhere(repository, name):
    place = repository / name
    pages = [place] if place.is_file() else sorted(place.rglob("*.md"))
    assert pages
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), f"{page.relative_to(repository)}: {target}"


def test_python_blocks_are_python(repository):
    for page in [repository / "README.md", *Path(repository / "docs").rglob("*.md")]:
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            compile(block, str(page), "exec")
