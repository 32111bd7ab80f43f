"""core.bitfit: biases told by their exact name, and nothing else moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import peftx
from peftx.errors import SelectionError


def _keys(model: nn.Module, **options: Any) -> set[str]:
    return {row.key for row in peftx.explain(model, "core.bitfit", **options).rows}


@pytest.mark.parametrize(
    "name", ["timm_vit", "transformers_vit", "transformers_bert", "transformers_gpt2", "conv2d"]
)
def test_takes_every_bias_and_the_head(case_of: Callable[[str], Any], name: str) -> None:
    model = case_of(name).build()
    heads = {"head.weight", "classifier.weight"}
    wanted = {key for key, _ in model.named_parameters() if key.endswith(".bias") or key in heads}
    assert _keys(model) == wanted


def test_biases_by_another_name(case_of: Callable[[str], Any]) -> None:
    beit = _keys(case_of("timm_beit").build())
    assert {"blocks.0.attn.q_bias", "blocks.0.attn.v_bias"} <= beit
    packed = _keys(case_of("packed_attention_bias_kv").build())
    assert packed == {"trunk.attn.in_proj_bias", "trunk.attn.out_proj.bias", "head.bias", "head.weight"}


def test_relative_position_tables_are_no_biases(case_of: Callable[[str], Any]) -> None:
    for name in ("timm_swin", "timm_beit"):
        model = case_of(name).build()
        assert (
            any("relative_position_bias_table" in key for key, _ in model.named_parameters())
            or name == "timm_beit"
        )
        assert not any("table" in key or "rel_pos" in key for key in _keys(model))


def test_without_norms_and_by_role(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    assert not any("norm" in key for key in _keys(model, norms=False))
    assert _keys(model) - _keys(model, norms=False) == {
        *(f"blocks.{i}.norm{n}.bias" for i in (0, 1) for n in (1, 2)),
        "norm.bias",
    }
    assert _keys(model, targets=["mlp.up"], also_train=[]) == {f"blocks.{i}.mlp.fc1.bias" for i in (0, 1)}
    assert _keys(model, targets=["attention"], exclude=["attention.out"], also_train=[]) == {
        f"blocks.{i}.attn.qkv.bias" for i in (0, 1)
    }


def test_a_model_without_biases_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Embedding(3, 3))
    with pytest.raises(SelectionError, match="has a bias"):
        peftx.attach(model, "core.bitfit")
    assert [type(m) for m in model] == [nn.Linear, nn.Embedding]


def test_only_the_listed_vectors_change(case_of: Callable[[str], Any]) -> None:
    case = case_of("timm_vit")
    model = case.build().train()
    adapted = peftx.attach(model, "core.bitfit")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(adapted.param_groups(0.1, weight_decay=0.5))
    for _ in range(3):
        optimizer.zero_grad()
        case.call(model, *case.samples()).square().sum().backward()
        optimizer.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {key for key, _ in adapted.named_parameters()}


def test_biases_do_not_decay(case_of: Callable[[str], Any]) -> None:
    adapted = peftx.attach(case_of("timm_vit").build(), "core.bitfit", also_train=[])
    assert [group["weight_decay"] for group in adapted.param_groups(0.1, weight_decay=0.5)] == [0.0, 0.0]


def test_adds_exactly_the_change_of_the_bias() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv1d(4, 4, 1))
    x = torch.randn(2, 3)
    before = model[0](x)
    adapted = peftx.attach(model, "core.bitfit")
    change = torch.randn(4)
    with torch.no_grad():
        adapted.tensors()["0.bias", "value"].add_(change)
    assert torch.allclose(model[0](x), before + change, atol=1e-6)


def test_switching_tasks_back_and_forth_is_exact(
    case_of: Callable[[str], Any], perturb: Callable[..., None]
) -> None:
    case = case_of("timm_swin")
    model, inputs = case.build(), case.samples()
    adapted = peftx.attach(model, "core.bitfit", name="a").attach("core.bitfit", name="b")
    perturb(adapted.tensors("a").values(), seed=1)
    perturb(adapted.tensors("b").values(), seed=2)
    with torch.no_grad():
        first = {name: case.call(adapted.activate(name).model, *inputs) for name in ("a", "b")}
        for name in ("a", "b", "a"):
            assert torch.equal(case.call(adapted.activate(name).model, *inputs), first[name])
