"""One backward reaches every trained tensor, and no frozen one."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import peftx


def _backward(case: Any, model: torch.nn.Module, inputs: Any) -> None:
    torch.manual_seed(5)
    y = case.call(model, *inputs)
    (y * torch.randn(y.shape)).sum().backward()


def test_every_trained_tensor_gets_a_gradient(case: Any, method: str, perturb: Callable[..., None]) -> None:
    model, inputs = case.build(), case.samples()
    base = list(model.parameters())
    adapted = case.attach(model, method)
    _backward(case, model, inputs)
    assert all(p.grad is not None for p in adapted.parameters())
    assert all(p.grad is None for p in base)
    embedding = {s.key for s in adapted.attachment().plan if s.kind == "embedding"}
    for (site, slot), value in adapted.tensors().items():
        waits = "B" if site in embedding else "A"  # the factor whose partner starts at zero
        if slot == waits:
            assert not value.grad.any(), f"{site} {slot}"

    for parameter in adapted.parameters():
        parameter.grad = None
    perturb(adapted.parameters())
    _backward(case, model, inputs)
    for (site, slot), value in adapted.tensors().items():
        if not value.requires_grad:
            assert isinstance(value, torch.Tensor) and value.grad is None, f"{site} {slot} is a statistic"
            continue
        largest = value.grad.abs().max().item()
        assert torch.isfinite(value.grad).all()
        if re.fullmatch(case.inert, site):
            assert largest < 1e-4, f"{site} {slot}"
        else:
            assert largest > 1e-7, f"{site} {slot}"
    assert all(p.grad is None for p in base)


# Not here: DoRA, whose gradient leaves its norm out on purpose (compared with the peft package elsewhere), and
# models that compute a softmax or a norm in float32 whatever they are given.
@pytest.mark.parametrize("method", ["core.full", "core.bitfit", "core.lora"])
@pytest.mark.parametrize(
    "name",
    [
        "conv1d",
        "conv2d",
        "norms",
        "packed_attention_widths",
        "decoder",
        "timm_swin",
        "timm_beit",
        "open_clip",
    ],
)
def test_gradients_match_finite_differences(
    case_of: Callable[[str], Any], name: str, method: str, perturb: Callable[..., None]
) -> None:
    """In float64, along one random direction of all trained tensors."""
    case = case_of(name)
    model = case.build().double()
    inputs = tuple(x.double() if x.is_floating_point() else x for x in case.samples(2))
    adapted = case.attach(model, method)
    perturb(adapted.parameters(), 0.1)
    parameters = list(adapted.parameters())
    assert all(p.dtype == torch.float64 for p in parameters)
    torch.manual_seed(2)
    direction = [torch.randn_like(p) for p in parameters]
    probe = torch.randn_like(case.call(model, *inputs))

    def value() -> torch.Tensor:
        return (case.call(model, *inputs) * probe).sum()

    gradients = torch.autograd.grad(value(), parameters)
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    step, sides = 1e-5, []
    with torch.no_grad():
        for sign in (1, -2):
            for p, d in zip(parameters, direction, strict=True):
                p.add_(sign * step * d)
            sides.append(float(value()))
    assert abs((sides[0] - sides[1]) / (2 * step) - slope) <= 1e-5 * max(1.0, abs(slope))


def test_the_bias_of_the_keys_is_inert(case_of: Callable[[str], Any]) -> None:
    case = case_of("timm_vit")
    model = case.build().double()
    adapted = peftx.attach(model, "core.bitfit")
    _backward(case, model, (case.samples()[0].double(),))
    for (site, _), value in adapted.tensors().items():
        if site.endswith("attn.qkv.bias"):
            q, k, v = value.grad.chunk(3)
            assert k.abs().max() < 1e-12 < 1e-6 < q.abs().max()
            assert v.abs().max() > 1e-6


def test_inactive_adapters_are_not_trained(case_of: Callable[[str], Any]) -> None:
    case = case_of("timm_vit")
    model, inputs = case.build(), case.samples()
    adapted = case.attach(model, "core.lora", name="a")
    adapted.attach("core.dora", name="b", rank=2)
    _backward(case, model, inputs)
    of = {name: list(adapted.tensors(name).values()) for name in adapted.names}
    assert all(t.grad is not None and t.requires_grad for t in of["b"])
    assert all(t.grad is None and not t.requires_grad for t in of["a"])
    adapted.activate("a")
    assert all(t.grad is None for t in of["b"]), "a stale gradient would be stepped on"
    adapted.activate("a", "b")
    _backward(case, model, inputs)
    for name in of:
        for (site, _), tensor in adapted.tensors(name).items():
            hidden = name == "a" and site.startswith("head.")  # b's head stands in its place
            assert (tensor.grad is None) is hidden
            assert tensor.requires_grad is not hidden
    adapted.activate("b", "a")
    assert all(t.requires_grad for t in of["a"]), "in this order b's head is the one replaced"
    adapted.attach("core.full", name="c")
    adapted.activate("a", "c")
    _backward(case, model, inputs)
    assert not any(t.requires_grad for t in of["a"]), "c replaces every weight a changes"
    assert all(p.grad is not None for p in adapted.parameters())
