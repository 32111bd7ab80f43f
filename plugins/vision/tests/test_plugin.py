"""The pack's declarations: light to import, complete, and every target really there."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata

import pytest

import peftx_vision
from peftx.plugins import load_target
from peftx_vision import plugin

SPECS = [
    spec
    for hook in (plugin.peftx_methods, plugin.peftx_tasks, plugin.peftx_datasets, plugin.peftx_models)
    for spec in hook()
]


def test_the_plugin_module_is_light() -> None:
    code = (
        "import sys, peftx_vision.plugin as p\n"
        "specs = [*p.peftx_tasks(), *p.peftx_datasets(), *p.peftx_models(), *p.peftx_methods()]\n"
        "print([m for m in ('torch', 'numpy', 'timm', 'sklearn', 'PIL') if m in sys.modules], len(specs))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[] {len(SPECS)}"


def test_configs_and_locators_are_torch_free() -> None:
    targets = [
        target
        for spec in SPECS
        for target in (spec.config, getattr(spec, "locate", ""), getattr(spec, "models", ""))
        if target
    ]
    code = (
        "import sys\nfrom peftx.plugins import load_target\n"
        f"for target in {targets!r}: load_target(target)\n"
        "print([m for m in ('torch', 'timm', 'sklearn') if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_target_is_there(spec: object) -> None:
    for attribute in ("target", "config", "locate", "models"):
        target = getattr(spec, attribute, "")
        if target:
            assert callable(load_target(target)), target


@pytest.mark.parametrize("spec", list(plugin.peftx_datasets()), ids=lambda spec: spec.name)
def test_data_sets_say_where_they_come_from(spec: object) -> None:
    assert spec.summary and spec.licence and spec.source and spec.locate  # type: ignore[attr-defined]


def test_names_belong_to_the_domain_and_defaults_exist() -> None:
    names = [spec.name for spec in SPECS]
    assert len(set(names)) == len(names)
    assert all(name.startswith("vision.") for name in names)
    (task,) = plugin.peftx_tasks()
    assert {task.default_data, task.default_model} <= set(names)


def test_the_stated_size_is_the_real_one() -> None:
    (spec,) = plugin.peftx_models()
    model = load_target(spec.target)(load_target(spec.config)(pretrained=False), None)
    assert sum(parameter.numel() for parameter in model.parameters()) == spec.params


def test_unverified_loaders_say_so() -> None:
    assert {spec.name for spec in plugin.peftx_datasets() if not spec.verified} == {
        "vision.cifar10",
        "vision.cifar100",
        "vision.dtd",
        "vision.eurosat",
        "vision.fashion_mnist",
        "vision.fgvc",
        "vision.flowers102",
        "vision.food101",
        "vision.medmnist",
        "vision.mnist",
        "vision.oxford_pets",
        "vision.svhn",
        "vision.vtab",
    }


def test_one_version() -> None:
    try:
        installed = metadata.version("peftx-vision")
    except metadata.PackageNotFoundError:
        pytest.skip("peftx-vision is not installed, only on the path")
    assert installed == peftx_vision.__version__
