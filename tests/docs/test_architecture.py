"""The code keeps the rules of docs/architecture.md, whose table of rooms is read here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ABOVE_ALL = {"__init__", "__main__"}  # the lazy top level may name every room


def imports(file: Path) -> Iterator[str]:
    """Absolute module names a file imports, at any depth of it, but not those for the type checker alone."""
    tree = ast.parse(file.read_text())
    for_types = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    hidden = {id(inner) for node in for_types for child in node.body for inner in ast.walk(child)}
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(folder: Path) -> list[Path]:
    found = sorted(folder.rglob("*.py"))
    assert found
    return found


@pytest.fixture(scope="module")
def rooms(repository) -> list[str]:
    """Rooms from the ground up, as the table has them."""
    page = (repository / "docs" / "architecture.md").read_text()
    table = page.partition("## The rooms of core")[2].partition("\n## ")[0]
    return [
        name.removesuffix(".py").removesuffix("/")
        for name in re.findall(r"^\| `([a-z_/.]+)` \|", table, re.M)
    ]


def test_every_room_is_in_the_table(repository, rooms):
    package = repository / "core" / "src" / "peftx"
    present = {
        entry.stem
        for entry in package.iterdir()
        if entry.suffix == ".py" or (entry / "__init__.py").is_file()
    }
    assert present - ABOVE_ALL <= set(rooms)
    assert rooms[0] == "errors" and rooms[-1] == "cli"


def test_a_room_imports_only_from_rooms_below_it(repository, rooms):
    package = repository / "core" / "src" / "peftx"
    height = {room: number for number, room in enumerate(rooms)}
    upward = set()
    for file in sources(package):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        if room in ABOVE_ALL:
            continue
        for name in imports(file):
            assert not name.startswith("."), f"{file}: imports in core are absolute"
            other = name.split(".")[1] if name.startswith("peftx.") else ""
            if other in height and height[other] > height[room]:
                upward.add(f"{file.relative_to(package)} imports peftx.{other}")
    assert not upward


def test_kernels_know_nothing_of_peftx(repository):
    for file in sources(repository / "kernels" / "src"):
        assert not [name for name in imports(file) if name.split(".")[0] == "peftx"], file


def test_core_knows_no_pack_and_no_pack_another(repository):
    packs = {folder.name for folder in (repository / "plugins").iterdir() if folder.is_dir()}
    for owner in ["core", *(f"plugins/{pack}" for pack in packs)]:
        foreign = {f"peftx_{pack}" for pack in packs if not owner.endswith(f"/{pack}")}
        for file in sources(repository / owner / "src"):
            assert not foreign & {name.split(".")[0] for name in imports(file)}, file


def test_one_file_knows_the_accelerator_library(repository):
    knowing = [
        file.name
        for file in sources(repository / "core" / "src")
        if any(name.split(".")[0] == "accelerate" for name in imports(file))
    ]
    assert len(knowing) <= 1, knowing


def test_torch_free_rooms_never_import_torch_on_loading(repository, rooms):
    """Import statements of the module level only: what a function imports when it is called is its own affair."""
    package = repository / "core" / "src" / "peftx"
    heavy = {"torch", "numpy", "accelerate", "timm", "transformers", "safetensors"}
    for file in [
        package / "__init__.py",
        *sources(package / "config"),
        *sources(package / "plugins"),
        *sources(package / "cli"),
    ]:
        body = ast.Module(
            [
                node
                for node in ast.parse(file.read_text()).body
                if isinstance(node, ast.Import | ast.ImportFrom)
            ],
            [],
        )
        names = {
            alias.name for node in ast.walk(body) if isinstance(node, ast.Import) for alias in node.names
        }
        names |= {node.module or "" for node in ast.walk(body) if isinstance(node, ast.ImportFrom)}
        assert not heavy & {name.split(".")[0] for name in names}, file


def test_nothing_is_pickled(repository):
    folders = ["kernels/src", "core/src", "plugins"]
    for file in [
        file for folder in folders for file in sources(repository / folder) if "tests" not in file.parts
    ]:
        text = file.read_text()
        assert not re.search(r"^\s*(import pickle|from pickle import (?!Unpickler\b))", text, re.M), file
        for call in re.findall(r"\btorch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, f"{file}: {call}"
