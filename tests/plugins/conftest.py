"""Real distributions: written here, built by flit, installed by pip, found through their metadata."""

from __future__ import annotations

import json
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

PYPROJECT = """
[build-system]
requires = ["flit_core>=3.11,<5"]
build-backend = "flit_core.buildapi"

[project]
name = "{name}"
version = "{version}"
description = "a plugin of a test"
requires-python = ">=3.11"
dependencies = ["peftx>=0.1,<0.2"]

[project.entry-points."peftx.plugins"]
{domain} = "{package}.plugin"

[tool.flit.module]
name = "{package}"
"""


@dataclass
class Bench:
    """An environment with the repository's own distributions, and a folder per third-party plugin beside it.

    `pip install --target` gives each plugin real installed metadata; which of them exist is then chosen per
    command by PYTHONPATH, so that every case is seen alone and together without installing anything twice.
    """

    environment: object
    work: Path

    def install(
        self, name: str, domain: str, source: str, files: dict[str, str] | None = None, version: str = "1.0"
    ) -> Path:
        """Write, build and install one plugin; returns the folder it was installed to."""
        package = name.replace("-", "_")
        project = self.work / "projects" / name
        inside = project / "src" / package
        inside.mkdir(parents=True)
        (project / "pyproject.toml").write_text(
            PYPROJECT.format(name=name, version=version, domain=domain, package=package)
        )
        (inside / "__init__.py").write_text('"""A plugin of a test."""\n')
        (inside / "plugin.py").write_text(textwrap.dedent(source))
        for file, text in (files or {}).items():
            (inside / file).write_text(textwrap.dedent(text))
        target = self.work / "installed" / name
        self.environment.install("--no-deps", "--target", target, project)
        return target

    def peftx(self, *arguments: str, plugins: list[Path] = (), **variables: str):
        """Run `peftx` where exactly these plugins are installed besides the repository's own."""
        path = os.pathsep.join(map(str, plugins))
        return self.environment.run("peftx", *arguments, PYTHONPATH=path, **variables)

    def json(self, *arguments: str, plugins: list[Path] = (), **variables: str):
        """The JSON that a command prints; it must exit 0."""
        done = self.peftx(*arguments, "--json", plugins=plugins, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def bench(make_environment, tmp_path_factory):
    # what an author of plugins has who installed the vision pack and pytest: none of the large optional libraries
    environment = make_environment(only=["peftx-vision[test]"])
    environment.install("./kernels", "./core", "./plugins/vision")
    return Bench(environment, tmp_path_factory.mktemp("third-party"))
