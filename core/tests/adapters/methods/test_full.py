"""core.full: every value of the model, copied, trained, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import peftx
from peftx.errors import SelectionError


def test_equals_training_the_model_itself(case_of: Callable[[str], Any]) -> None:
    """Three AdamW steps on a twin without adapters, with live dropout and batch statistics."""
    for name in ("norms", "timm_vit", "transformers_gpt2", "decoder"):
        case = case_of(name)
        plain, model, inputs = case.build().train(), case.build().train(), case.samples()
        adapted = case.attach(model, "core.full")
        losses = []
        for net, parameters in ((plain, list(plain.parameters())), (model, list(adapted.parameters()))):
            optimizer = torch.optim.AdamW(parameters, lr=1e-2)
            for step in range(3):
                torch.manual_seed(step)
                loss = case.call(net, *inputs).square().mean()
                losses.append(loss.item())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        assert losses[:3] == pytest.approx(losses[3:], rel=1e-5), name
        assert losses[0] != losses[2]
        trained = adapted.tensors()
        for key, parameter in plain.named_parameters():
            assert torch.allclose(trained[key, "value"], parameter, atol=1e-5), (name, key)


def test_targets_and_exclude_choose_parameters(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    rows = {row.key for row in peftx.explain(model, "core.full", targets=["blocks.1"]).rows}
    assert rows == {key for key, _ in model.named_parameters() if key.startswith("blocks.1.")}
    rows = {row.key for row in peftx.explain(model, "core.full", exclude=["norm", "cls_token"]).rows}
    assert rows == {key for key, _ in model.named_parameters() if "norm" not in key and key != "cls_token"}
    with pytest.raises(SelectionError, match="blokcs"):
        peftx.attach(model, "core.full", targets=["blokcs"])


def test_what_is_not_owned_is_frozen(case_of: Callable[[str], Any]) -> None:
    case = case_of("timm_vit")
    model = case.build()
    adapted = peftx.attach(model, "core.full", targets=["blocks.1"])
    case.call(model, *case.samples()).sum().backward()
    assert all(p.grad is not None for p in adapted.parameters())
    assert all(p.grad is None for key, p in model.named_parameters() if "peftx" not in key)


def test_batch_statistics_are_live() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    adapted = peftx.attach(model, "core.full")
    model.train()
    model(torch.randn(8, 3) + 5)
    assert model[0].running_mean.abs().max() > 0.1
    assert adapted.attachment().config.trunk == "train"
