"""Counts as they are, as the closed formula says, and as the papers print them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import peftx


def test_counts_are_the_formula_and_the_explanation(case: Any, method: str) -> None:
    model = case.build()
    promised = peftx.explain(model, method, **case.options(method))
    adapted = case.attach(model, method)
    counts = adapted.counts()
    assert counts == promised.counts
    assert counts.trainable == counts.adapter + counts.owned == sum(p.numel() for p in adapted.parameters())
    statistics = [site for site in adapted.attachment().sites if site.kind == "statistic"]
    moved = sum(site.numel * site.dtype.itemsize for site in statistics)
    assert counts.stored_bytes == 4 * counts.trainable + moved
    assert counts.base_total == sum(p.numel() for key, p in model.named_parameters() if "peftx" not in key)
    explained = adapted.explain()
    assert explained.rows == promised.rows
    adapters = [row.trained for row in explained.rows if not row.owned]
    assert sum(adapters) == counts.adapter
    sites = adapted.attachment().sites
    assert sorted(row.key for row in explained.rows) == list(sites.keys)


@pytest.fixture(scope="module")
def vit_base() -> torch.nn.Module:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        return timm.create_model("vit_base_patch16_224", num_classes=100)


HEAD = 76_900


@pytest.mark.parametrize(
    ("method", "options", "adapter", "owned"),
    [
        ("core.full", {}, 0, 85_875_556),
        ("core.full", {"exclude": ["head"]}, 0, 85_798_656),
        ("core.head", {}, 0, HEAD),
        ("core.bitfit", {"also_train": []}, 0, 103_012),
        ("core.bitfit", {"exclude": ["head"]}, 0, 102_912),
        ("core.bitfit", {}, 0, 179_812),
        ("core.bitfit", {"norms": False, "exclude": ["head"]}, 0, 83_712),
        ("core.lora", {"rank": 8, "targets": ["attention.q", "attention.v"]}, 294_912, HEAD),
        ("core.lora", {"rank": 8, "targets": ["attention.qkv"]}, 294_912, HEAD),
        ("core.lora", {"rank": 16, "targets": ["attention.q", "attention.v"]}, 589_824, HEAD),
        ("core.lora", {"rank": 8}, 1_179_648, HEAD),
        ("core.lora", {"rank": 8, "targets": ["all-linear"], "also_train": []}, 1_179_648, 0),
        ("core.rslora", {"rank": 8}, 1_179_648, HEAD),
        ("core.dora", {"rank": 8}, 1_179_648 + 12 * (2304 + 768 + 3072 + 768), HEAD),
    ],
)
def test_published_figures_of_vit_base(
    vit_base: torch.nn.Module, method: str, options: dict[str, Any], adapter: int, owned: int
) -> None:
    counts = peftx.explain(vit_base, method, **options).counts
    assert (counts.adapter, counts.owned, counts.trainable) == (adapter, owned, adapter + owned)
    assert counts.base_total == 85_875_556
