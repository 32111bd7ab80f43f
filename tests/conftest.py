"""What every cross-distribution test stands on: the repository, its distributions, and throw-away environments.

An `Environment` is a virtual environment made without any download: the third-party packages it may see are
symbolic links into the environment that runs the tests, either all of them or exactly those which a
distribution declares. pip then resolves and installs the local distributions for real, with the index off.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class LocalDistribution:
    """One folder of the repository with a pyproject.toml of its own."""

    folder: Path
    project: dict

    @property
    def name(self) -> str:
        return self.project["name"]

    @property
    def version(self) -> str:
        return self.project["version"]

    @property
    def package(self) -> str:
        return self.name.replace("-", "_")

    @property
    def is_pack(self) -> bool:
        return self.folder.parent.name == "plugins"

    @property
    def requirements(self) -> list[Requirement]:
        return [Requirement(line) for line in self.project["dependencies"]]


def local_distributions() -> list[LocalDistribution]:
    folders = [ROOT / "kernels", ROOT / "core", *sorted((ROOT / "plugins").glob("*/"))]
    files = [folder / "pyproject.toml" for folder in folders]
    return [
        LocalDistribution(file.parent, tomllib.loads(file.read_text())["project"])
        for file in files
        if file.is_file()
    ]


@dataclass(frozen=True)
class Environment:
    """A virtual environment in a temporary folder, filled by links and by offline installs."""

    folder: Path

    @property
    def bin(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    @property
    def python(self) -> Path:
        return self.bin / "python"

    @property
    def site(self) -> Path:
        return Path(sysconfig.get_path("purelib", "venv", vars={"base": str(self.folder)}))

    def run(
        self, *command: object, cwd: Path | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command (a script of this environment, or any path) and return its outcome, whatever it is."""
        program, *arguments = map(str, command)
        if (self.bin / program).exists():
            program = str(self.bin / program)
        return subprocess.run(
            [program, *arguments],
            cwd=cwd or self.folder,
            env=clean_environment() | variables,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def ok(self, *command: object, cwd: Path | None = None, **variables: str) -> str:
        """Run a command that must succeed and return what it printed."""
        outcome = self.run(*command, cwd=cwd, **variables)
        assert outcome.returncode == 0, (
            f"{command} ended with {outcome.returncode}\n{outcome.stdout}\n{outcome.stderr}"
        )
        return outcome.stdout

    def pip(self, *arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        """Run the parent's pip on this environment, offline: what it needs must be local or linked."""
        command = [sys.executable, "-m", "pip", "--python", self.python, *arguments]
        return self.run(*command, cwd=cwd)

    def install(self, *arguments: object, cwd: Path = ROOT) -> None:
        outcome = self.pip(
            "install", "--no-index", "--no-build-isolation", "--no-compile", *arguments, cwd=cwd
        )
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def clean_environment() -> dict[str, str]:
    """This process's variables without what would leak another peftx, another pip source, pytest or more threads in."""
    dropped = re.compile(r"PYTHON(PATH|HOME)|PEFTX_.*|PIP_.*|PYTEST_.*|VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not dropped.fullmatch(name)}
    return kept | {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_CACHE_DIR": "1",
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
    }


def top_level_entries(found: Distribution) -> dict[str, Path]:
    """Name and place of every entry of site-packages that belongs to an installed distribution."""
    # .pth files are how editable installs reach their sources: none may leak into another environment
    names = {file.parts[0] for file in found.files or () if not file.parts[0].endswith(".pth")}
    places = {name: Path(str(found.locate_file(name))) for name in names - {"..", "__pycache__"}}
    return {name: place for name, place in places.items() if place.exists()}


def closure(names: Iterable[str]) -> set[str]:
    """Installed third-party distributions that `names` need, without extras unless asked for as name[extra]."""
    waiting = [Requirement(name) for name in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        try:
            declared = distribution(wanted.name).requires or []
        except PackageNotFoundError:
            continue
        seen.add(key)
        for requirement in map(Requirement, declared):
            extras = wanted.extras or {""}
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in extras
            ):
                waiting.append(requirement)
    return {name for name, _ in seen}


def installed() -> set[str]:
    """Names of all distributions this interpreter sees."""
    return {canonicalize_name(found.metadata["Name"]) for found in metadata.distributions()}


@pytest.fixture(scope="session")
def repository() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def distributions() -> list[LocalDistribution]:
    return local_distributions()


@pytest.fixture(scope="session")
def make_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Environment]]:
    """A factory of environments: `make_environment()` sees every third-party package of the one that runs the
    tests, `make_environment(only=[...])` sees what those requirements need and the build backend."""
    # not even looked for as a module: after that the setuptools of this process, which inductor asks, refuse to work
    if "pip" not in installed():
        pytest.skip("environments are filled by pip, which is not installed here")
    made: list[Path] = []

    def make(only: Iterable[str] | None = None) -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        venv.EnvBuilder(with_pip=False, symlinks=os.name != "nt").create(folder)
        environment = Environment(folder)
        local = {canonicalize_name(one.name) for one in local_distributions()}
        names = installed() if only is None else closure([*only, "flit_core"])
        for name in sorted(names - local):
            for entry, place in top_level_entries(distribution(name)).items():
                link = environment.site / entry
                if not link.exists():  # some distributions share a folder
                    link.symlink_to(place)
        made.append(folder)
        return environment

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)  # removes the links, never what they point to


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one wheel of every distribution, built from the working tree."""
    folder = tmp_path_factory.mktemp("wheels")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-index", "--no-build-isolation"]
    command += ["-w", folder, *(one.folder for one in local_distributions())]
    outcome = subprocess.run(
        list(map(str, command)), env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return folder
