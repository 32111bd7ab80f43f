"""What an explanation says: before attaching, without a tensor, as text and as data."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import peftx
from peftx.adapters.methods.lora import LoRA
from peftx.errors import SelectionError


def test_is_plain_data(case: Any, method: str) -> None:
    model = case.build()
    data = json.loads(json.dumps(peftx.explain(model, method, **case.options(method)).to_dict()))
    assert data["method"] == method
    assert (
        sum(row["trained"] for row in data["rows"]) >= data["counts"]["trainable"]
    )  # tied ones are counted once
    assert not any("peftx" in key for key in model.state_dict())
    assert all(p.requires_grad == q for p, q in zip(model.parameters(), _flags(case), strict=True))


def _flags(case: Any) -> list[bool]:
    return [p.requires_grad for p in case.build().parameters()]


def test_text_by_role_and_by_site(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    explained = peftx.explain(model, "core.lora", rank=2)
    text = explained.render()
    assert text.startswith("core.lora   R (out + in) a site")
    lines = text.splitlines()
    assert any(line.split() == ["attention.qkv", "24", "x", "8", "2", "128"] for line in lines)
    assert any(line.startswith("head (owned)") for line in lines)
    adapter = 2 * 2 * ((24 + 8) + (8 + 8) + (32 + 8) + (8 + 32))  # two blocks, rank 2
    assert f"trained {adapter + 27} = adapter {adapter} + owned 27 (head 27)" in text
    sites = explained.render(sites=True)
    assert all(row.key in sites for row in explained.rows)
    assert len(sites.splitlines()) == len(explained.rows) + 4


def test_nothing_is_allocated_for_a_model_on_the_meta_device() -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=10)
    made: list[torch.Size] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            value = func(*args, **(kwargs or {}))
            if isinstance(value, torch.Tensor) and not value.is_meta:
                made.append(value.shape)
            return value

    for method in ("core.lora", "core.dora", "core.full", "core.bitfit", "core.head"):
        with Watch():
            assert peftx.explain(model, method).counts.trainable > 7000
    assert made == []
    assert all(p.is_meta and p.requires_grad for p in model.parameters())


def test_random_numbers_stay() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    state = torch.get_rng_state()
    peftx.explain(model, "core.lora", targets=["0"])
    assert torch.equal(torch.get_rng_state(), state)


def test_is_refused_as_attaching_is() -> None:
    with pytest.raises(SelectionError, match=r"nothing in the model matches"):
        peftx.explain(nn.Sequential(nn.Tanh()), "core.lora")
    with pytest.raises(SelectionError, match="nothing"):
        peftx.explain(nn.Sequential(nn.Linear(2, 2)), "core.lora", targets=[])


def test_memory_counts_an_input_once_however_many_slices(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    whole = peftx.explain(model, "core.lora", targets=["attention.qkv"]).memory
    slices = peftx.explain(model, "core.lora", targets=["attention.q", "attention.v"]).memory
    assert whole["per_token"] == slices["per_token"] == 2 * 8 * 4


class OfOutputs(LoRA):
    keeps_input = False
    keeps_output = True


def test_memory_counts_outputs_where_a_method_keeps_them(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    whole = peftx.explain(model, OfOutputs, targets=["attention.qkv"]).memory
    slices = peftx.explain(model, OfOutputs, targets=["attention.q", "attention.v"]).memory
    assert whole["per_token"] == 2 * 24 * 4 and slices["per_token"] == 2 * 16 * 4
    read = peftx.explain(case_of("packed_attention").build(), OfOutputs, targets=["attention"]).memory
    assert read["per_token"] == 0, "a weight that is read without its layer has no output to keep"
    counts = peftx.explain(model, "core.lora").counts
    assert peftx.explain(model, "core.lora").memory["training"] == 16 * counts.trainable


def test_ranks_of_their_own_are_counted(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    explained = peftx.explain(
        model,
        "core.lora",
        targets=["mlp.up"],
        rank=2,
        rank_pattern={r"blocks\.1\.mlp\.fc1": 5},
        also_train=[],
    )
    assert {row.key: row.trained for row in explained.rows} == {
        "blocks.0.mlp.fc1": 2 * (8 + 32),
        "blocks.1.mlp.fc1": 5 * (8 + 32),
    }
