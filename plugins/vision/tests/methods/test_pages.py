"""The numbers on the pages of the pack's methods are what the methods give."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import peftx
from peftx.plugins import get_registry, load_target

PAGES = Path(__file__).parents[4] / "docs" / "methods" / "vision"
METHODS = (
    "snell",
    "adaptertune",
    "adaptformer",
    "mosa",
    "bi_adaptformer",
    "bi_lora",
    "snella",
    "ssf",
    "hydra",
    "vpt_shallow",
    "vpt_deep",
)

pytestmark = pytest.mark.skipif(not PAGES.is_dir(), reason="the pages are not here: an installed copy")


@pytest.fixture(scope="module")
def vit_base() -> nn.Module:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        return timm.create_model("vit_base_patch16_224", num_classes=100)  # type: ignore[no-any-return]


def fields_of(method: str) -> dict[str, Any]:
    return dict(load_target(get_registry().methods[f"vision.{method}"].spec.config).model_fields)


@pytest.mark.parametrize("method", METHODS)
def test_count(method: str, vit_base: nn.Module) -> None:
    page = (PAGES / f"{method}.md").read_text()
    stated = re.search(r"`vit_base_patch16_224` with 100 classes:\s+([\d,]+) trained values", page)
    assert stated
    counts = peftx.explain(vit_base, f"vision.{method}").to_dict()["counts"]
    assert counts["trainable"] == int(stated.group(1).replace(",", ""))


@pytest.mark.parametrize("method", METHODS)
def test_defaults_and_options(method: str) -> None:
    page = (PAGES / f"{method}.md").read_text()
    fields = fields_of(method)
    stated = dict(re.findall(r"`(\w+) = ([^`]+)`", page.partition("**Defaults.**")[2].partition("\n\n")[0]))
    for name, value in stated.items():
        assert repr(fields[name].default).replace("'", '"').lower().removesuffix(".0") == value, name
    shared = {"targets", "exclude", "also_train", "trunk"}
    assert not set(fields) - shared - set(stated)
