"""What a release wrote, every later one reads, and computes the same from."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from peftx import artifacts
from peftx.errors import PluginError, UnknownNameError
from peftx.plugins import get_registry

FOLDER = Path(__file__).parent / "fixtures"
NAMES = sorted(path.parent.name for path in FOLDER.glob("*/adapter.json"))


@pytest.fixture(scope="module")
def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("peftx_fixtures", FOLDER / "make.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_an_old_adapter_loads_for_ever(name: str, made: ModuleType) -> None:
    method = artifacts.read_manifest(FOLDER / name).method
    try:
        get_registry().resolve_method(method)
    except (PluginError, UnknownNameError) as error:
        pytest.skip(f"its method is not installed: {error}")
    model = made.build()
    base = model(made.inputs()).detach()
    adapted = artifacts.load(model, FOLDER / name)
    stored = load_file(FOLDER / name / "adapter.safetensors")
    for (site, slot), value in adapted.tensors().items():
        key = f"{site}::{slot}"
        assert key not in stored or torch.equal(value, stored[key]), key
    expected = load_file(FOLDER / name / "expected.safetensors")["outputs"]
    with torch.no_grad():
        found = model(made.inputs())
    assert not torch.allclose(expected, base, atol=1e-3), "the adapter does something"
    assert float((found - expected).abs().max()) <= 1e-6 * float(expected.abs().max())


def test_every_method_of_core_and_every_line_has_its_folder(made: ModuleType) -> None:
    methods = {name for name, entry in get_registry().methods.items() if entry.spec.kind == "adapter"}
    kept = {artifacts.read_manifest(FOLDER / name).method for name in NAMES}
    assert {name for name in methods if name.startswith("core.")} <= kept
    assert set(NAMES) == set(made.FIXTURES)


def test_the_fixtures_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 300_000
