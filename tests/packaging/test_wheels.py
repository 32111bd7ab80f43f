"""What is inside each wheel: nothing that ties it to this repository, nothing missing, nothing extra."""

from __future__ import annotations

import email
import zipfile
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

SHARED = {"peftx", "peftx-kernels"}  # every local distribution that another one may depend on


@pytest.fixture(scope="module")
def wheels(wheelhouse: Path) -> dict[str, zipfile.ZipFile]:
    files = sorted(wheelhouse.glob("*.whl"))
    return {file.name.split("-")[0]: zipfile.ZipFile(file) for file in files}


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return email.message_from_string(wheel.read(name).decode())


def test_every_folder_builds_one_wheel(distributions, wheels):
    assert sorted(wheels) == sorted(one.package for one in distributions)
    assert {"peftx", "peftx_kernels", "peftx_vision"} <= set(wheels)


def test_requirements_name_versions_never_places(wheels):
    for name, wheel in wheels.items():
        lines = metadata(wheel).get_all("Requires-Dist") or []
        assert lines, f"{name} declares no requirement"
        for line in lines:
            assert Requirement(line).url is None, f"{name} requires a place: {line}"
            assert "file:" not in line and "git+" not in line


def test_one_version_and_one_python_for_all(distributions, wheels):
    assert len({one.version for one in distributions}) == 1
    for one in distributions:
        assert metadata(wheels[one.package])["Version"] == one.version
        assert metadata(wheels[one.package])["Requires-Python"] == ">=3.11"


def test_pins_admit_this_release_and_stop_before_the_next(distributions):
    version = distributions[0].version
    major, minor = map(int, version.split(".")[:2])
    expected = SpecifierSet(f">={major}.{minor},<{major}.{minor + 1}")
    pins = [
        (one.name, requirement)
        for one in distributions
        for requirement in one.requirements
        if requirement.name.startswith("peftx")
    ]
    assert {owner for owner, _ in pins} == {one.name for one in distributions if one.name != "peftx-kernels"}
    for owner, requirement in pins:
        assert requirement.name in SHARED, f"{owner} depends on another pack: {requirement}"
        assert requirement.specifier == expected, f"{owner}: {requirement}, expected {expected}"
        assert requirement.specifier.contains(version)


def test_kernels_are_a_leaf(distributions):
    (kernels,) = (one for one in distributions if one.name == "peftx-kernels")
    assert {requirement.name for requirement in kernels.requirements} == {"torch", "triton"}
    (triton,) = (requirement for requirement in kernels.requirements if requirement.name == "triton")
    assert triton.marker is not None
    assert triton.marker.evaluate({"sys_platform": "linux"})
    assert not triton.marker.evaluate({"sys_platform": "darwin"})


def test_torchaudio_is_required_nowhere(repository, distributions):
    files = [repository / "requirements-dev.txt", *(one.folder / "pyproject.toml" for one in distributions)]
    for file in files:
        assert "torchaudio" not in file.read_text(), f"{file} names torchaudio"


def test_wheels_hold_the_package_its_licence_and_its_types(repository, distributions, wheels):
    licence = (repository / "LICENSE").read_bytes()
    for one in distributions:
        wheel = wheels[one.package]
        info = f"{one.package}-{one.version}.dist-info"
        assert {name.split("/")[0] for name in wheel.namelist()} == {one.package, info}
        assert wheel.read(f"{info}/licenses/LICENSE") == licence
        assert f"{one.package}/py.typed" in wheel.namelist()
        assert metadata(wheel)["License-Expression"] == "Apache-2.0"


def test_wheels_hold_every_source_file(distributions, wheels):
    for one in distributions:
        source = one.folder / "src"
        expected = {
            file.relative_to(source).as_posix()
            for file in source.rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }
        assert expected <= set(wheels[one.package].namelist())


def test_vision_ships_its_weights(repository, wheels):
    folder = repository / "plugins/vision/src/peftx_vision/weights"
    if not list(folder.glob("*.safetensors")):
        pytest.skip("the weights of vit_micro are not in the tree")
    shipped = [info for info in wheels["peftx_vision"].infolist() if info.filename.endswith(".safetensors")]
    assert [Path(info.filename).name for info in shipped] == [
        file.name for file in sorted(folder.glob("*.safetensors"))
    ]
    assert sum(info.file_size for info in shipped) < 4_000_000


def test_entry_point_is_the_folder_name(distributions, wheels):
    for one in distributions:
        points = one.project.get("entry-points", {}).get("peftx.plugins", {})
        if one.is_pack:
            domain = one.folder.name
            assert one.name == f"peftx-{domain}"
            assert points == {domain: f"peftx_{domain}.plugin"}
            (name,) = (name for name in wheels[one.package].namelist() if name.endswith("/entry_points.txt"))
            assert f"{domain}=peftx_{domain}.plugin" in wheels[one.package].read(name).decode()
        else:
            assert points == {}, f"{one.name} is not a pack but declares a plugin"
