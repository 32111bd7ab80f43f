"""The repository itself: nothing in a committed file ties it to one machine or one package index."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

# written in pieces, so that this file does not match itself
HOSTS = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "download.py" + "torch.org",
    "ana" + "conda.org",
    "--index" + "-url",
]
HOSTS += ["extra-index" + "-url", "file:" + "///"]
PLACES = re.compile(r"(?<![\w./~*-])/(work|root|home|Users|opt)/\w+")
GENERATED = {
    ".git",
    ".venv",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    "dist",
    "build",
}


def text_files(root: Path) -> list[Path]:
    """Committed files, and new ones that are not ignored, that hold text."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    outcome = subprocess.run(listing, cwd=root, capture_output=True, text=True, check=False)
    if outcome.returncode == 0 and (root / ".git").exists():
        files = [root / name for name in outcome.stdout.split("\0") if name]
    else:
        files = [
            Path(folder) / name
            for folder, folders, names in os.walk(root)
            if folders.__setitem__(slice(None), [each for each in folders if each not in GENERATED]) is None
            for name in names
        ]
    return [file for file in files if file.is_file() and b"\0" not in file.read_bytes()[:8192]]


@pytest.fixture(scope="module")
def texts(repository) -> dict[Path, str]:
    return {file: file.read_text(errors="replace") for file in text_files(repository)}


def test_no_package_index_is_named(texts):
    assert len(texts) > 20
    found = [f"{file}: {host}" for file, text in texts.items() for host in HOSTS if host in text.lower()]
    assert not found


def test_no_absolute_path_of_a_machine(texts):
    found = [f"{file}: {match.group()}" for file, text in texts.items() for match in PLACES.finditer(text)]
    assert not found


def test_no_lock_file(texts):
    assert not [file for file in texts if re.fullmatch(r"(uv|poetry|pdm)\.lock|pylock.*\.toml", file.name)]


def test_root_is_tool_configuration_only(repository):
    assert set(tomllib.loads((repository / "pyproject.toml").read_text())) == {"tool"}


def test_test_folders_are_not_packages(texts):
    assert not [file for file in texts if file.name == "__init__.py" and "tests" in file.parts]


def test_one_licence(repository, distributions):
    licence = (repository / "LICENSE").read_bytes()
    assert b"Apache License" in licence and b"END OF TERMS AND CONDITIONS" in licence
    assert all((one.folder / "LICENSE").read_bytes() == licence for one in distributions)


def test_every_distribution_introduces_itself(distributions):
    for one in distributions:
        text = (one.folder / "README.md").read_text()
        assert text.startswith(f"# {one.name}\n")
        assert "pip install ./kernels" in text, f"{one.name}: the README must name the local folders together"


def test_version_in_code_is_the_version_of_the_distribution(distributions):
    for one in distributions:
        text = (one.folder / "src" / one.package / "__init__.py").read_text()
        stated = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
        assert stated is None or stated.group(1) == one.version, one.name


def test_continuous_integration_reads_the_readme(repository):
    script = repository / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    text = script.read_text()
    assert "README.md" in text
    assert "pip install ./kernels ./core ./plugins" not in text, "the command must come from the README"
