"""What the sites of an adapter share is made once, trained once, saved once, and follows its model."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.adapters import AdapterMethod, Delta, Site, SitePlan
from peftx.config.adapter import AdapterConfig


class SharedConfig(AdapterConfig):
    targets: list[str] = Field(default=["glob:trunk.*"])
    also_train: list[str] = Field(default=["head"])
    rank: int = 2
    seed: int = 5


class Bank(nn.Module):
    """A trained direction, and random bases that follow from the seed."""

    basis: Tensor

    def __init__(self, plan: SitePlan, config: SharedConfig) -> None:
        super().__init__()
        self.width = max(site.shape[1] for site in plan)
        self.A = nn.Parameter(torch.randn(config.rank, self.width))
        generator = torch.Generator().manual_seed(config.seed)
        basis = torch.randn(max(site.shape[0] for site in plan), config.rank, generator=generator)
        self.register_buffer("basis", basis, persistent=False)


class Shared(Delta):
    """W' = W + P diag(l) A with A and P shared."""

    bank: Bank

    def __init__(
        self, site: Site, config: SharedConfig, weight: Tensor, bias: Tensor | None, bank: Bank
    ) -> None:
        super().__init__(site, bank)
        self.l = nn.Parameter(torch.zeros(config.rank))

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        out, width = self.site.shape
        return weight + (self.bank.basis[:out] * self.l) @ self.bank.A[:, :width], bias

    @staticmethod
    def param_count(site: Site, config: SharedConfig) -> int:
        return config.rank


class SharedMethod(AdapterMethod):
    Config = SharedConfig
    Delta = Shared
    kinds = ("linear",)

    def bank(self, plan: SitePlan, config: Any) -> Bank:
        return Bank(plan, config)

    def bank_count(self, plan: SitePlan, config: Any) -> int:
        return int(config.rank * max(site.shape[1] for site in plan))


@pytest.fixture(autouse=True)
def _found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let artifacts find the method by its name, as they do a plugin's."""
    from peftx.adapters import attachment

    resolve = attachment.resolve_method

    def found(method: Any, config: Any, options: dict[str, Any]) -> Any:
        if method == "mine.shared":
            _, instance, settings = resolve(SharedMethod, config, options)
            return "mine.shared", instance, settings
        return resolve(method, config, options)

    monkeypatch.setattr(attachment, "resolve_method", found)
    monkeypatch.setattr(importlib.import_module("peftx.artifacts.load"), "resolve_method", found)


class Model(nn.Module):
    peftx_head = "head"

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def _moved(name: str = "default") -> peftx.Adapted:
    torch.manual_seed(1)
    adapted = peftx.attach(Model(), "mine.shared", name=name)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(torch.randn_like(parameter))
    return adapted


def test_attach_train_detach() -> None:
    torch.manual_seed(0)
    model = Model()
    keys, x = list(model.state_dict()), torch.randn(3, 4)
    before = model(x)
    adapted = peftx.attach(model, "mine.shared")
    assert torch.equal(model(x), before)
    assert [key for key in model.state_dict() if "peftx" not in key] == keys
    assert sum("peftx_bank" in key for key in model.state_dict()) == 1, "the seeded basis is not stored"
    counts = adapted.counts()
    assert counts.adapter == 2 * 2 + 2 * 6 and counts.owned == 12
    assert counts == peftx.explain(Model(), "mine.shared").counts
    assert "shared by all sites" in adapted.explain().render()
    assert adapted.attachment().plan.keys == ("trunk.0", "trunk.2"), "banks are no sites"
    optimizer = torch.optim.SGD(adapted.param_groups(lr=0.1))
    adapted.bind(optimizer)
    for _ in range(2):
        model(x).square().sum().backward()
        optimizer.step()
    bank = model.get_submodule("peftx_bank.default")
    assert bank.A.grad is not None and bank.A.grad.abs().sum() > 0  # type: ignore[union-attr]
    assert not torch.equal(model(x), before)
    adapted.detach()
    assert torch.equal(model(x), before) and list(model.state_dict()) == keys
    assert all(p.requires_grad for p in model.parameters())


def test_moving_it_moves_the_output_and_every_site_sees_it() -> None:
    adapted = _moved()
    x = torch.randn(3, 4)
    y = adapted.model(x)
    bank: Any = adapted.model.get_submodule("peftx_bank.default")
    for mode in (True, False):
        adapted.model.train(mode)
        with torch.no_grad():
            bank.A.mul_(2)
            assert not torch.allclose(adapted.model(x), y)
            bank.A.mul_(0.5)
    deltas = [adapted.model.trunk[i].peftx["default"]["weight"] for i in (0, 2)]  # type: ignore[index,union-attr]
    assert all(delta.bank is bank for delta in deltas)


def test_copies_have_their_own() -> None:
    adapted = _moved()
    x = torch.randn(3, 4)
    y = adapted.model(x)
    twin = copy.deepcopy(adapted.model)
    with torch.no_grad():
        twin.get_submodule("peftx_bank.default").A.zero_()  # type: ignore[operator]
    assert torch.equal(adapted.model(x), y)
    assert not torch.allclose(twin(x), y)


def test_two_adapters_have_two_banks_and_mix() -> None:
    adapted = _moved("a")
    adapted.attach("mine.shared", name="b")
    with torch.no_grad():
        for parameter in adapted.parameters("b"):
            parameter.add_(torch.randn_like(parameter))
    x = torch.randn(3, 4)
    alone = {name: adapted.activate(name).model(x) for name in ("a", "b")}
    with adapted.per_sample(["b", "a", "b"]):
        mixed = adapted.model(x)
    torch.testing.assert_close(mixed, torch.stack([alone["b"][0], alone["a"][1], alone["b"][2]]))
    adapted.activate("a")
    names = [key for key, _ in adapted.named_parameters()]
    assert "peftx_bank.a.A" in names and "peftx_bank.b.A" not in names
    adapted.remove("b")
    assert list(adapted.model.peftx_bank) == ["a"]  # type: ignore[arg-type,union-attr]


def test_saved_once_and_strictly(tmp_path: Path) -> None:
    adapted = _moved()
    x = torch.randn(3, 4)
    y = adapted.model(x)
    artifacts.save(adapted, tmp_path)
    keys = [record.site + "::" + record.slot for record in artifacts.read_manifest(tmp_path).tensors]
    assert keys.count("@bank::A") == 1 and "@bank::basis" not in keys
    fresh = _moved().detach()
    loaded = artifacts.load(fresh, tmp_path)
    assert torch.equal(loaded.model(x), y)
    assert loaded.counts().stored_bytes == adapted.counts().stored_bytes


def test_half_precision_and_moving_the_model() -> None:
    adapted = _moved()
    model = adapted.model.to(torch.float64)
    bank: Any = model.get_submodule("peftx_bank.default")
    assert bank.A.dtype == bank.basis.dtype == torch.float64
    assert model(torch.randn(2, 4, dtype=torch.float64)).dtype == torch.float64


def test_nothing_is_shared_where_nothing_is_adapted(toy: Any) -> None:
    model = toy(nn.Tanh(), 4)
    explained = peftx.explain(model, SharedMethod, targets=[])
    adapted = peftx.attach(model, SharedMethod, targets=[])
    assert adapted.counts() == explained.counts and adapted.counts().adapter == 0
    assert {key for key, _ in adapted.tensors()} == {"head.weight", "head.bias"}
    assert not any("peftx_bank" in key for key in model.state_dict())
