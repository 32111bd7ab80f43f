"""The handle: which adapters act, what is trained, and what an optimizer must hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import peftx
from peftx.errors import AdapterError, UnknownNameError


@pytest.fixture
def two(toy: Any, perturb: Callable[..., None]) -> peftx.Adapted:
    model = toy(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 4)), 4).eval()
    adapted = peftx.attach(
        model, "core.lora", name="a", targets=["trunk.0", "trunk.2"], also_train=[], rank=2
    )
    perturb(adapted.parameters())
    adapted.attach("core.lora", name="b", targets=["trunk.2"], also_train=[], rank=3)
    perturb(adapted.parameters(), seed=5)
    return adapted


X = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


def test_activation(two: peftx.Adapted) -> None:
    assert two.names == ("a", "b") and two.active == ("b",)
    found = {}
    for names in ((), ("a",), ("b",), ("a", "b"), ("b", "a")):
        assert two.activate(*names) is two and two.active == names
        found[names] = two.model(X)
        trained = {key.split("peftx.")[1][0] for key, _ in two.named_parameters()}
        assert trained == set(names)
    with two.disabled():
        assert two.active == ()
        assert torch.equal(two.model(X), found[()])
    assert two.active == ("b", "a")
    outputs = list(found.values())
    for i, one in enumerate(outputs[:4]):
        assert not any(torch.allclose(one, other, atol=1e-4) for other in outputs[:i])
    assert torch.allclose(found["a", "b"], found["b", "a"], atol=1e-5)


def test_two_loras_on_one_layer_add_up(two: peftx.Adapted) -> None:
    layer = two.model.trunk[2]
    h = torch.randn(5, 6)
    base, tensors = nn.functional.linear(h, layer._parameters["weight"], layer._parameters["bias"]), {}
    for name, scale in (("a", 8), ("b", 16 / 3)):
        own = two.tensors(name)
        tensors[name] = scale * h @ own["trunk.2", "A"].t() @ own["trunk.2", "B"].t()
    two.activate("a", "b")
    assert torch.allclose(layer(h), base + tensors["a"] + tensors["b"], atol=1e-5)


@pytest.mark.parametrize("first", ["core.lora", "core.dora", "core.bitfit", "core.full"])
@pytest.mark.parametrize("second", ["core.lora", "core.dora", "core.bitfit", "core.full"])
def test_any_two_methods_compose(
    case_of: Callable[[str], Any], first: str, second: str, perturb: Callable[..., None]
) -> None:
    """Called layer by layer, and with the weights read: the second sees what the first made, in every mode."""
    case = case_of("timm_beit")
    model, inputs = case.build(), case.samples()
    adapted = case.attach(model, first, name="a")
    case.attach(model, second, name="b")
    perturb(adapted.tensors("a").values(), 0.1)
    perturb(adapted.tensors("b").values(), 0.1, seed=5)
    adapted.activate("a", "b")
    torch.manual_seed(1)
    y = case.call(model, *inputs)
    y.square().sum().backward()
    assert all(p.grad is not None for p in adapted.parameters())
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.allclose(case.call(model, *inputs), y, atol=1e-5)
    plain = case.build()
    with torch.no_grad():
        for path, module in model.named_modules():
            if ".peftx" in f".{path}":
                continue
            for key in module._parameters:
                if module._parameters[key] is not None:
                    plain.get_submodule(path)._parameters[key].copy_(getattr(module, key))
        assert torch.allclose(case.call(plain, *inputs), y, atol=1e-4)


def test_a_norm_of_a_moving_weight_is_never_stale(perturb: Callable[..., None]) -> None:
    """DoRA over a LoRA whose values change between forwards that build no graph."""
    model = nn.Sequential(nn.Linear(32, 32)).eval()
    adapted = peftx.attach(model, "core.lora", name="a", targets=["0"], also_train=[])
    adapted.attach("core.dora", name="b", targets=["0"], also_train=[])
    adapted.activate("a", "b")
    x = torch.randn(4, 32)
    for seed in range(4):
        perturb(adapted.tensors("a").values(), 1.0, seed)
        fresh = copy.deepcopy(model)
        for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
            with mode():
                assert torch.allclose(model(x), fresh(x), atol=1e-5)


def test_unknown_and_repeated_names(two: peftx.Adapted) -> None:
    with pytest.raises(UnknownNameError, match="'c'"):
        two.activate("a", "c")
    with pytest.raises(AdapterError, match="twice"):
        two.activate("a", "a")
    assert two.active == ("b",)
    for call in (two.attachment, two.counts, two.explain, two.tensors, two.remove, two.train_only):
        with pytest.raises(UnknownNameError):
            call("c")
    two.activate("a", "b")
    with pytest.raises(AdapterError, match=r"\(a, b\); name one"):
        two.counts()


def test_activating_inside_a_block_lasts(two: peftx.Adapted) -> None:
    with two.disabled():
        two.activate("a")
    assert two.active == ("a",)
    with two.disabled(), two.disabled():
        pass
    assert two.active == ("a",)


def test_train_only(two: peftx.Adapted) -> None:
    two.activate("a").train_only("b")
    assert two.active == ("a",)
    assert {id(p) for p in two.parameters()} == {id(t) for t in two.tensors("b").values()}


def test_removal(two: peftx.Adapted) -> None:
    two.activate()
    base = two.model(X)
    two.activate("a")
    a = two.model(X)
    assert two.remove("b") is two
    assert two.names == two.active == ("a",)
    assert torch.equal(two.model(X), a)
    assert not any(".b." in key for key in two.model.state_dict())
    assert two.remove("a") is None
    assert torch.equal(two.model(X), base)
    with pytest.raises(AdapterError, match="carries no adapter"):
        _ = two.names


def test_removing_the_active_one_leaves_the_base(two: peftx.Adapted) -> None:
    with two.disabled():
        base = two.model(X)
    two.remove("b")
    assert two.active == () and torch.equal(two.model(X), base)
    assert type(two.model.trunk[0]) is not nn.Linear and two.model.state_dict().keys()
    assert list(two.parameters()) == []


def test_a_name_can_be_used_again(two: peftx.Adapted) -> None:
    two.remove("b")
    two.attach("core.head", name="b")
    assert two.names == ("a", "b") and two.active == ("b",)


def test_the_handle_of_a_model(two: peftx.Adapted) -> None:
    again = peftx.adapted(two.model)
    assert again.names == two.names and again.model is two.model
    assert "core.lora" in repr(again) and "2 sites" in repr(again)
    with pytest.raises(AdapterError, match="carries no adapter"):
        peftx.adapted(nn.Linear(2, 2))
    with pytest.raises(AdapterError, match="carries no adapter"):
        peftx.adapted(two.model.trunk)


def test_parameter_groups(toy: Any) -> None:
    model = toy(nn.Linear(4, 4), 4)
    adapted = peftx.attach(model, "core.dora", targets=["trunk"])
    groups = adapted.param_groups(1e-3, head_lr=1e-2, weight_decay=0.1)
    named = {group["name"]: group for group in groups}
    assert set(named) == {"adapter.matrices", "adapter.vectors", "head.matrices", "head.vectors"}
    assert {(g["lr"], g["weight_decay"]) for g in groups} == {(1e-3, 0.1), (1e-3, 0), (1e-2, 0.1), (1e-2, 0)}
    assert named["adapter.vectors"]["params"][0] is adapted.tensors()["trunk", "m"]
    assert named["head.vectors"]["params"][0] is adapted.tensors()["head.bias", "value"]
    flat = [id(p) for group in groups for p in group["params"]]
    assert sorted(flat) == sorted(id(p) for p in adapted.parameters())
    assert {g["lr"] for g in adapted.param_groups(1e-3)} == {1e-3}
    torch.optim.AdamW(groups)


def test_a_detached_handle_has_no_parameters_to_train(two: peftx.Adapted) -> None:
    two.detach()
    with pytest.raises(AdapterError, match="carries no adapter"):
        two.param_groups(lr=1e-3)


def test_bind(two: peftx.Adapted) -> None:
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    assert two.bind(optimizer, total_steps=10) is two
    with pytest.raises(AdapterError, match="at least 1"):
        two.bind(optimizer, total_steps=0)
    two.activate("a")
    with pytest.raises(AdapterError, match=r"lacks 4 trained tensors, the first being trunk\.0\.peftx\.a"):
        two.bind(optimizer)
    two.bind(torch.optim.SGD(two.model.parameters(), lr=0.1))


def test_many_selections_are_not_piled_up(two: peftx.Adapted) -> None:
    for _ in range(10):
        with two.per_sample(["a", None, "b", None, "a"]):
            two.model(X)
        with two.disabled():
            two.model(X)
    assert len(two._board._pending) <= 2


def test_training_an_adapter_moves_it_alone(two: peftx.Adapted) -> None:
    before = {key: value.clone() for key, value in two.model.state_dict().items()}
    optimizer = torch.optim.AdamW(two.param_groups(0.1, weight_decay=0.5))
    for _ in range(3):
        optimizer.zero_grad()
        two.model(X).square().sum().backward()
        optimizer.step()
    after = two.model.state_dict()
    moved = {key for key, value in before.items() if not torch.equal(after[key], value)}
    assert moved == {key for key, _ in two.named_parameters("b")}
