"""An adapter whose parameters grew or shrank in training is stored as it became, and loaded into that form."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.adapters import AdapterMethod, Delta, Schedule, Site
from peftx.config.adapter import AdapterConfig
from peftx.errors import ArtifactError


class GrowConfig(AdapterConfig):
    targets: list[str] = Field(default=["glob:*"])
    also_train: list[str] = Field(default=[])


class Growing(Delta):
    """W + B A, of a rank that grows by one a step."""

    elastic: ClassVar[tuple[str, ...]] = ("A", "B")

    def __init__(self, site: Site, config: GrowConfig, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.A = nn.Parameter(torch.randn(1, site.shape[1]))
        self.B = nn.Parameter(torch.zeros(site.shape[0], 1))
        self.fixed = nn.Parameter(torch.zeros(site.shape[0]))

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.B @ self.A + self.fixed[:, None], bias

    @staticmethod
    def param_count(site: Site, config: GrowConfig) -> int:
        return sum(site.shape) + site.shape[0]


class Grow(Schedule):
    def after_step(self, step: int) -> None:
        assert step == self.step
        for delta in self.deltas.values():
            rank = delta.A.shape[0]  # type: ignore[union-attr]
            take = torch.tensor([*range(rank), -1])
            self.store.replace(delta.A, torch.cat((delta.A, torch.randn(1, delta.A.shape[1]))), take=take)  # type: ignore[arg-type,union-attr]
            self.store.replace(
                delta.B,  # type: ignore[arg-type]
                torch.cat((delta.B, torch.zeros(len(delta.B), 1)), 1),  # type: ignore[arg-type]
                take=take,
                dim=1,
            )


class GrowMethod(AdapterMethod):
    Config = GrowConfig
    Delta = Growing
    kinds = ("linear",)

    def schedule(self, config: Any) -> Schedule:
        return Grow()


@pytest.fixture(autouse=True)
def _found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from peftx.adapters import attachment

    resolve = attachment.resolve_method

    def found(method: Any, config: Any, options: dict[str, Any]) -> Any:
        if method == "mine.growing":
            return "mine.growing", *resolve(GrowMethod, config, options)[1:]
        return resolve(method, config, options)

    monkeypatch.setattr(attachment, "resolve_method", found)
    monkeypatch.setattr(importlib.import_module("peftx.artifacts.load"), "resolve_method", found)


def _base() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))


def _trained(steps: int = 3) -> peftx.Adapted:
    adapted = peftx.attach(_base(), "mine.growing")
    adapted.model.train()
    optimizer = torch.optim.AdamW(adapted.parameters(), 0.05)
    adapted.bind(optimizer, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        adapted.model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    return adapted


def test_it_comes_back_as_it_became(tmp_path: Path) -> None:
    adapted, x = _trained(), torch.randn(5, 4)
    artifacts.save(adapted, tmp_path)
    loaded = artifacts.load(_base(), tmp_path)
    delta: Any = loaded.model[0].peftx["default"]["weight"]  # type: ignore[index,union-attr]
    assert delta.A.shape == (4, 4) and delta.B.shape == (3, 4)
    assert delta.A.requires_grad and delta.B.requires_grad
    assert torch.equal(loaded.model.eval()(x), adapted.model.eval()(x))
    assert loaded.counts() == adapted.counts()
    loaded.model.train()
    again = torch.optim.AdamW(loaded.parameters(), 0.05)
    loaded.bind(again, total_steps=1)  # and can be trained on
    loaded.model(x).sum().backward()
    again.step()
    assert delta.A.shape == (5, 4)


def test_what_is_not_elastic_is_refused(tmp_path: Path) -> None:
    adapted = _trained()
    for index in (0, 2):
        delta: Any = adapted.model[index].peftx["default"]["weight"]  # type: ignore[index,union-attr]
        delta.fixed = nn.Parameter(torch.zeros(1))
    artifacts.save(adapted, tmp_path)
    base = _base()
    keys = list(base.state_dict())
    with pytest.raises(ArtifactError, match=r"0::fixed has shape \(1,\), expected \(3,\) here"):
        artifacts.load(base, tmp_path)
    assert list(base.state_dict()) == keys and type(base[0]) is nn.Linear  # type: ignore[index]


def test_another_number_of_dimensions_is_refused(tmp_path: Path) -> None:
    adapted = _trained()
    delta: Any = adapted.model[0].peftx["default"]["weight"]  # type: ignore[index,union-attr]
    delta.A = nn.Parameter(torch.zeros(4))
    artifacts.save(adapted, tmp_path)
    assert json.loads((tmp_path / "adapter.json").read_text())["method"] == "mine.growing"
    with pytest.raises(ArtifactError, match=r"0::A has shape \(4,\)"):
        artifacts.load(_base(), tmp_path)
