"""The numbers on the method pages are what the methods give."""

from __future__ import annotations

import re

import pytest

import peftx
from peftx.plugins import get_registry, load_target


@pytest.fixture(scope="module")
def vit_base():
    """ViT-B/16 with 100 classes, without memory for its weights."""
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    with torch.device("meta"):
        return timm.create_model("vit_base_patch16_224", num_classes=100)


CORE = ("full", "head", "bitfit", "lora", "rslora", "dora")


@pytest.mark.parametrize("method", CORE)
def test_count_on_the_page_is_the_count_of_the_method(repository, vit_base, method):
    page = (repository / "docs" / "methods" / "core" / f"{method}.md").read_text()
    stated = re.search(r"`vit_base_patch16_224` with 100 classes:\s+([\d,]+) trained values", page)
    assert stated, f"docs/methods/core/{method}.md states no count"
    explained = peftx.explain(vit_base, f"core.{method}").to_dict()
    assert explained["counts"]["trainable"] == int(stated.group(1).replace(",", ""))


@pytest.mark.parametrize("method", CORE)
def test_defaults_on_the_page_are_the_defaults_of_the_method(repository, method):
    page = (repository / "docs" / "methods" / "core" / f"{method}.md").read_text()
    defaults = page.partition("**Defaults.**")[2].partition("\n\n")[0]
    fields = load_target(get_registry().methods[f"core.{method}"].spec.config).model_fields
    stated = re.findall(r"`(\w+) = ([^`]+)`", defaults)
    assert stated
    for name, value in stated:
        assert repr(fields[name].default).replace("'", '"').lower().removesuffix(".0") == value, (
            f"{method}: {name}"
        )


def test_every_option_of_a_method_is_on_its_page(repository):
    shared = {"targets", "exclude", "also_train", "trunk"}
    lora = {"rank", "alpha", "dropout", "init", "rank_pattern", "alpha_pattern"}
    for method in CORE:
        page = (repository / "docs" / "methods" / "core" / f"{method}.md").read_text()
        fields = set(load_target(get_registry().methods[f"core.{method}"].spec.config).model_fields)
        inherited = shared | (lora if "core.lora" in page else set())
        missing = {name for name in fields - inherited if f"`{name}" not in page}
        assert not missing or method == "lora", f"{method}: {missing}"
        if method == "lora":
            assert all(f"`{name}" in page for name in lora)
