"""Copies, saved models, other precisions and loaded states: an adapted model is an ordinary model."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import peftx

NAMES = ("conv2d", "embedding", "packed_attention", "encoder", "timm_vit", "timm_beit", "transformers_gpt2")


@pytest.fixture(params=NAMES)
def adapted_case(
    request: pytest.FixtureRequest, case_of: Callable[[str], Any], perturb: Callable[..., None]
) -> tuple[Any, nn.Module, peftx.Adapted]:
    """A model with a DoRA and, on top, an adapter that owns its head."""
    case = case_of(request.param)
    model = case.build()
    adapted = case.attach(model, "core.dora", name="a")
    perturb(adapted.parameters())
    case.attach(model, "core.lora", name="b")
    perturb(adapted.parameters(), seed=4)
    adapted.activate("a")
    return case, model, adapted


def _run(case: Any, model: nn.Module, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return case.call(model, *inputs)


def test_a_deep_copy_is_another_model(adapted_case: Any, perturb: Callable[..., None]) -> None:
    case, model, adapted = adapted_case
    inputs = case.samples()
    before = _run(case, model, inputs)
    twin = copy.deepcopy(model)
    other = peftx.adapted(twin)
    assert torch.equal(_run(case, twin, inputs), before)
    assert (other.names, other.active) == (adapted.names, adapted.active)
    assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}

    other.activate("b")
    assert adapted.active == ("a",)
    assert (_run(case, twin, inputs) - before).abs().max() > 1e-3
    assert torch.equal(_run(case, model, inputs), before), "the original follows its copy"
    perturb(other.parameters("b"))
    adapted.activate("b")
    assert (_run(case, twin, inputs) - _run(case, model, inputs)).abs().max() > 1e-3
    other.detach()
    assert adapted.names == ("a", "b")
    adapted.activate("a")
    assert torch.equal(_run(case, model, inputs), before)


def test_a_saved_model_comes_back(adapted_case: Any) -> None:
    case, model, _ = adapted_case
    inputs = case.samples()
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)  # written a line above
    assert torch.equal(_run(case, loaded, inputs), _run(case, model, inputs))
    handle = peftx.adapted(loaded)
    assert handle.names == ("a", "b")
    base = type(peftx.adapted(model).detach())
    assert type(handle.detach()) is base
    assert torch.equal(_run(case, loaded, inputs), _run(case, model, inputs))


def test_a_state_dict_restores_base_and_adapters(adapted_case: Any, perturb: Callable[..., None]) -> None:
    case, model, _ = adapted_case
    inputs = case.samples()
    before, state = _run(case, model, inputs), copy.deepcopy(model.state_dict())
    for assign in (False, True):
        perturb(model.parameters())
        assert (_run(case, model, inputs) - before).abs().max() > 1e-3
        model.load_state_dict(copy.deepcopy(state), assign=assign)
        assert torch.equal(_run(case, model, inputs), before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_precision_can_change_under_an_adapter(adapted_case: Any, dtype: torch.dtype) -> None:
    case, model, _ = adapted_case
    inputs = case.samples()
    before = _run(case, model, inputs)
    model.to(dtype)
    inputs = tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)
    after = _run(case, model, inputs)
    assert after.dtype == dtype
    tolerance = {torch.float64: 1e-5, torch.float16: 0.05, torch.bfloat16: 0.4}[dtype]
    assert (after.float() - before).abs().max() < tolerance * max(1.0, before.abs().max().item())


@pytest.mark.parametrize("method", ["core.full", "core.bitfit", "core.lora", "core.dora"])
def test_a_low_precision_base_keeps_its_adapter_in_float32(
    case_of: Callable[[str], Any], method: str, perturb: Callable[..., None]
) -> None:
    case = case_of("timm_vit")
    model = case.build().bfloat16()
    inputs = (case.samples()[0].bfloat16(),)
    before = _run(case, model, inputs)
    adapted = case.attach(model, method)
    assert {p.dtype for p in adapted.parameters()} == {torch.float32}
    assert (_run(case, model, inputs) - before).abs().max() <= 0.02 * before.abs().max()
    perturb(adapted.parameters())
    y = case.call(model, *inputs)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in adapted.parameters())


@pytest.mark.parametrize("method", ["core.full", "core.bitfit", "core.lora", "core.dora"])
def test_under_autocast(case_of: Callable[[str], Any], method: str, perturb: Callable[..., None]) -> None:
    for name in ("timm_vit", "conv2d", "packed_attention", "embedding"):
        case = case_of(name)
        if method == "core.bitfit" and name == "embedding":
            continue  # it has no bias
        model, inputs = case.build(), case.samples()
        adapted = case.attach(model, method)
        perturb(adapted.parameters())
        expected = _run(case, model, inputs)
        with torch.autocast("cpu", torch.bfloat16):
            y = case.call(model, *inputs)
        assert (y.float() - expected).abs().max() < 0.1 * max(1.0, expected.abs().max().item())
        y.float().sum().backward()
        assert all(p.grad is not None and p.grad.dtype == p.dtype for p in adapted.parameters())


def test_zero_grad_and_traversals(adapted_case: Any) -> None:
    case, model, adapted = adapted_case
    case.call(model, *case.samples()).sum().backward()
    assert any(p.grad is not None for p in adapted.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    for path, module in model.named_modules():
        assert model.get_submodule(path) is module
    visited: list[nn.Module] = []
    model.apply(visited.append)
    assert len(visited) == len(list(model.modules()))
    assert repr(model).startswith(type(model).__name__) and "(peftx): Slot(" in repr(model)
