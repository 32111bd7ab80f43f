"""torch.compile over adapted models: one graph, the right values, few recompilations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import peftx

METHODS = ["core.full", "core.head", "core.bitfit", "core.lora", "core.rslora", "core.dora"]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.fc1 = nn.Linear(16, 24)
        self.fc2 = nn.Linear(24, 16)
        self.scale = nn.Parameter(torch.ones(16))
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(x + self.scale * self.fc2(nn.functional.gelu(self.fc1(self.norm(x)))))


OPTIONS: dict[str, dict[str, Any]] = {"core.full": {}, "core.bitfit": {"also_train": ["classifier"]}}


def options(method: str) -> dict[str, Any]:
    return OPTIONS.get(method, {"also_train": ["classifier"]})


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()


def perturb(adapted: peftx.Adapted) -> None:
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


@pytest.mark.parametrize("method", METHODS)
def test_one_graph_with_eager_values_and_gradients(method: str) -> None:
    model = Net()
    adapted = peftx.attach(model, method, **options(method))
    perturb(adapted)
    x = torch.randn(5, 16)
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in adapted.parameters() if p.grad is not None]
    for parameter in adapted.parameters():
        parameter.grad = None
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    y = compiled(x)
    y.square().sum().backward()
    assert counter.frame_count == 1
    assert torch.allclose(y, model(x), atol=1e-5)
    got = [p.grad for p in adapted.parameters()]
    assert len(got) == len(expected)
    for mine, other in zip(got, expected, strict=True):
        assert mine is not None and (mine - other).abs().max() <= 1e-5 * (1 + other.abs().max())


@pytest.mark.parametrize("method", METHODS)
def test_at_most_one_recompilation_across_switches(method: str) -> None:
    model = Net().eval()
    first = peftx.attach(model, method, name="a", **options(method))
    perturb(first)
    first.attach(method, name="b", **options(method))
    perturb(first)
    first.activate("a")
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    x = torch.randn(5, 16)
    seen: dict[str, Tensor] = {}
    for name in ("a", "b", "a", "b", "b", "a"):
        first.activate(name)
        y = compiled(x)
        assert torch.allclose(y, model(x), atol=1e-5)
        seen.setdefault(name, y.detach())
        assert torch.allclose(seen[name], y.detach())
    assert not torch.allclose(seen["a"], seen["b"], atol=1e-3)
    assert counter.frame_count <= 2


@pytest.mark.parametrize("method", ["core.lora", "core.dora"])
@pytest.mark.slow
def test_inductor(method: str) -> None:
    model = Net()
    adapted = peftx.attach(model, method, targets=["fc1", "fc2"])
    perturb(adapted)
    x = torch.randn(5, 16)
    compiled = torch.compile(model, fullgraph=True)
    y = compiled(x)
    y.sum().backward()
    assert torch.allclose(y, model(x), atol=1e-4)
    assert all(p.grad is not None for p in adapted.parameters())


def test_dropout_trains_under_compile() -> None:
    model = Net().train()
    adapted = peftx.attach(model, "core.lora", targets=["fc1", "fc2"], dropout=0.5)
    perturb(adapted)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(64, 16)
    assert not torch.equal(compiled(x), compiled(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_packed_attention_in_one_graph() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    adapted = peftx.attach(layer, "core.lora")
    perturb(adapted)
    x = torch.randn(2, 5, 16)
    for training in (False, True):
        layer.train(training)
        torch.manual_seed(1)
        expected = layer(x)
        torch.manual_seed(1)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        y = compiled(x)
        if not training:
            assert torch.allclose(y, expected, atol=1e-5)
        y.sum().backward()
        assert all(p.grad is not None for p in adapted.parameters())
