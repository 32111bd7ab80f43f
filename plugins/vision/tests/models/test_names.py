"""Which free model names the pack accepts, before torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from peftx_vision.models.names import TIMM_CONFIG, known, timm_name


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "vit_tiny_patch16_224.augreg_in21k",
        "timm:resnet18",
        "timm:vit_small_patch14_dinov2.lvd142m",
    ],
)
def test_timm_names_are_accepted_with_their_options(name: str) -> None:
    assert known(name) == TIMM_CONFIG


@pytest.mark.parametrize(
    "name", ["", "timm:", "ResNet 18", "a.b.c", "hf-hub:x/y", "../weights", "vision:x", "9lives"]
)
def test_other_names_are_not(name: str) -> None:
    assert known(name) is False


def test_the_prefix_goes() -> None:
    assert timm_name("timm:resnet18") == timm_name("resnet18") == "resnet18"


def test_asking_imports_neither_torch_nor_timm() -> None:
    code = (
        "import sys, peftx_vision.models.names as n, peftx_vision.config.tasks; assert n.known('resnet18'); "
        "sys.exit('torch' in sys.modules or 'timm' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
