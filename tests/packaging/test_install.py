"""Every way the README and the guide tell people to install, done for real by pip with the index switched off."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

PLACES = """
import json, peftx, peftx_kernels, peftx_vision
print(json.dumps([module.__file__ for module in (peftx, peftx_kernels, peftx_vision)]))
"""
FOLDERS = ["./kernels", "./core", "./plugins/vision"]
#: every folder is once in each place, and of any two each comes once before the other
ORDERS = [FOLDERS[n:] + FOLDERS[:n] for n in range(len(FOLDERS))]


def assert_all_three_work(environment) -> list[Path]:
    """The three packages import and the script runs; returns where they lie."""
    places = json.loads(environment.ok("python", "-c", PLACES))
    assert "vision" in environment.ok("peftx", "list")
    return [Path(place) for place in places]


@pytest.fixture(scope="module")
def empty_environment(make_environment):
    """One environment for what only asks pip a question."""
    return make_environment()


@pytest.mark.parametrize("order", ORDERS, ids=" ".join)
def test_folders_resolve_in_any_order(empty_environment, order):
    outcome = empty_environment.pip(
        "install", "--quiet", "--no-index", "--no-build-isolation", "--dry-run", "--report", "-", *order
    )
    assert outcome.returncode == 0, outcome.stderr
    planned = {one["metadata"]["name"]: one["download_info"] for one in json.loads(outcome.stdout)["install"]}
    assert set(planned) == {"peftx", "peftx-kernels", "peftx-vision"}
    assert all("dir_info" in source for source in planned.values()), "all three must come from their folders"


@pytest.fixture(scope="module")
def declared(make_environment):
    """The three folders, named together, with nothing beyond what their pyproject files declare."""
    environment = make_environment(only=["peftx-vision"])
    environment.install("./plugins/vision", "./core", "./kernels")
    return environment


def test_folders_install_together(declared):
    assert all(place.is_relative_to(declared.folder) for place in assert_all_three_work(declared))


def test_declared_requirements_are_enough_to_train(declared):
    """A short run reaches its result."""
    arguments = "--method core.head --data digits --epochs 1 --baselines [] --offline".split()
    arguments += "--data.limit-train 64 --data.val-fraction 0.1 --data.test-fraction 0.1".split()
    declared.ok("peftx", "run", "vision", *arguments, "--out", declared.folder / "out")
    assert (declared.folder / "out" / "record.json").is_file()


def test_folders_install_editable(make_environment, repository):
    environment = make_environment()
    environment.install("-e", "./plugins/vision", "-e", "./core", "-e", "./kernels")
    assert all(place.is_relative_to(repository) for place in assert_all_three_work(environment))


def test_development_file_lists_every_distribution_editable(repository, distributions):
    lines = (repository / "requirements-dev.txt").read_text().splitlines()
    editable = dict(re.findall(r"^-e (\S+)\[(\S+)\]$", "\n".join(lines), re.MULTILINE))
    assert set(editable) == {f"./{one.folder.relative_to(repository).as_posix()}" for one in distributions}
    assert all("test" in extras.split(",") for extras in editable.values())


def test_editable_replaces_a_plain_install(make_environment, repository):
    environment = make_environment()
    environment.install("./kernels", "./core", "./plugins/vision")
    environment.install("-e", "./core")
    core, kernels, vision = assert_all_three_work(environment)
    assert core.is_relative_to(repository)
    assert kernels.is_relative_to(environment.folder) and vision.is_relative_to(environment.folder)


def test_wheels_install_from_a_folder(make_environment, wheelhouse):
    environment = make_environment()
    environment.install("--find-links", wheelhouse, "peftx-vision")
    assert all(place.is_relative_to(environment.folder) for place in assert_all_three_work(environment))


def test_core_and_kernels_work_alone(make_environment):
    environment = make_environment(only=["peftx"])
    environment.install("./kernels", "./core")
    assert environment.pip("check").returncode == 0
    listing = environment.ok("peftx", "list")
    assert "core.lora" in listing
    assert "peftx-vision" in listing, "with no pack installed, the list must say which exist"
    environment.ok("python", "-c", "import peftx; peftx.attach")


def test_a_pack_refuses_the_next_minor_release_of_core(empty_environment, repository, tmp_path):
    newer = tmp_path / "core"
    shutil.copytree(repository / "core", newer, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    file = newer / "pyproject.toml"
    file.write_text(file.read_text().replace('version = "0.1.0"', 'version = "0.2.0"'))
    outcome = empty_environment.pip(
        "install", "--dry-run", "--no-index", "--no-build-isolation", "./kernels", newer, "./plugins/vision"
    )
    assert outcome.returncode != 0
    assert "peftx-vision 0.1.0 depends on peftx<0.2" in outcome.stdout + outcome.stderr
