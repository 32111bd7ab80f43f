"""core.head: the declared head, whatever a library calls it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import peftx
from peftx.errors import SelectionError

HEADS = {
    "timm_vit": {"head.weight", "head.bias"},
    "timm_deit": {"head.weight", "head.bias", "head_dist.weight", "head_dist.bias"},
    "timm_swin": {"head.fc.weight", "head.fc.bias"},
    "timm_convnext": {"head.fc.weight", "head.fc.bias"},
    "timm_beit": {"head.weight", "head.bias"},
    "timm_eva": {"head.weight", "head.bias"},
    "transformers_vit": {"classifier.weight", "classifier.bias"},
    "transformers_bert": {"classifier.weight", "classifier.bias"},
}


@pytest.mark.parametrize("name", HEADS)
def test_owns_the_head_and_nothing_else(case_of: Callable[[str], Any], name: str) -> None:
    adapted = peftx.attach(case_of(name).build(), "core.head")
    assert set(adapted.attachment().sites.keys) == HEADS[name]
    counts = adapted.counts()
    assert counts.adapter == 0 and counts.head == counts.owned == counts.trainable


@pytest.mark.parametrize("name", ["transformers_gpt2", "openai_whisper", "transformers_clip"])
def test_a_model_without_a_head_says_how_to_name_one(case_of: Callable[[str], Any], name: str) -> None:
    with pytest.raises(SelectionError, match="also_train"):
        peftx.attach(case_of(name).build(), "core.head")


def test_no_graph_goes_through_the_trunk(case_of: Callable[[str], Any]) -> None:
    """Memory does not grow with depth: what the backward keeps is the head's input."""
    case = case_of("timm_vit")
    model = case.build().train()
    peftx.attach(model, "core.head")
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        y = case.call(model, *case.samples())
    assert y.requires_grad
    assert sum(t.numel() for t in kept if t.shape[0] == 4) <= 4 * 8 + 4 * 3


def test_cached_features_give_the_same_logits(case_of: Callable[[str], Any]) -> None:
    case = case_of("timm_vit")
    model, (x,) = case.build().train(), case.samples()
    adapted = peftx.attach(model, "core.head")
    features = model.forward_head(model.forward_features(x), pre_logits=True).detach()
    optimizer = torch.optim.AdamW(adapted.param_groups(0.1))
    for _ in range(3):
        model.train()
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    assert torch.equal(model.forward_head(model.forward_features(x), pre_logits=True), features)
    own = adapted.tensors()
    logits = nn.functional.linear(features, own["head.weight", "value"], own["head.bias", "value"])
    assert torch.allclose(model(x), logits, atol=1e-5)
    assert own["head.weight", "value"].requires_grad


def test_several_heads_live_side_by_side(case_of: Callable[[str], Any], perturb: Callable[..., None]) -> None:
    case = case_of("timm_vit")
    model, (x,) = case.build(), case.samples()
    adapted = peftx.attach(model, "core.head", name="cats")
    adapted.attach("core.head", name="dogs")
    perturb(adapted.tensors("cats").values(), seed=1)
    perturb(adapted.tensors("dogs").values(), seed=2)
    cats, dogs = adapted.activate("cats").model(x), adapted.activate("dogs").model(x)
    assert not torch.allclose(cats, dogs, atol=1e-3)
    for _ in range(2):
        assert torch.equal(adapted.activate("cats").model(x), cats)
        assert torch.equal(adapted.activate("dogs").model(x), dogs)
