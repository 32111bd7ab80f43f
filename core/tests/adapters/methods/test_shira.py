"""SHiRA: exactly K distinct entries, gradients there and nowhere else, the same choice everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import AdapterError


class Net(nn.Module):
    peftx_head = "head"

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 8)
        self.conv = nn.Conv1d(8, 6, 3, groups=2)
        self.qkv = nn.Linear(6, 18)
        self.head = nn.Linear(18, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.qkv(self.conv(self.table(ids).transpose(1, 2)).transpose(1, 2)).mean(1))


def _make(**options: Any) -> tuple[peftx.Adapted, Tensor]:
    torch.manual_seed(0)
    model = Net().eval()
    adapted = peftx.attach(model, "core.shira", **({"rank": 1, "targets": ["glob:*"]} | options))
    return adapted, torch.randint(0, 9, (2, 7))


def _values(adapted: peftx.Adapted) -> dict[str, Tensor]:
    return {site: tensor for (site, slot), tensor in adapted.tensors().items() if slot == "v"}


def _indices(adapted: peftx.Adapted) -> dict[str, Tensor]:
    return {site: tensor for (site, slot), tensor in adapted.tensors().items() if slot == "indices"}


@pytest.mark.parametrize("mask", ["random", "magnitude"])
@pytest.mark.parametrize("rank", [1, 2, 100])
def test_exactly_k_distinct_entries(mask: str, rank: int) -> None:
    adapted, _ = _make(mask=mask, rank=rank)
    for site in adapted.attachment().plan:
        out, width = site.matrix
        found = _indices(adapted)[site.key]
        assert found.dtype == torch.int32 and len(found.unique()) == len(found) == len(
            _values(adapted)[site.key]
        )
        assert len(found) == min(rank * (out + width), out * width)
        assert int(found.min()) >= 0 and int(found.max()) < out * width
        assert torch.equal(found, found.sort().values)


def test_the_largest_entries_are_taken() -> None:
    adapted, _ = _make(mask="magnitude")
    weight = adapted.model.qkv._parameters["weight"].detach().flatten().abs()
    chosen = torch.zeros_like(weight, dtype=torch.bool)
    chosen[_indices(adapted)["qkv"].long()] = True
    assert weight[chosen].min() >= weight[~chosen].max()


def test_starts_at_the_base_and_moves_only_its_entries() -> None:
    torch.manual_seed(0)
    base = Net().eval()
    adapted, ids = _make(also_train=[])
    model = adapted.model
    assert torch.equal(model(ids), base(ids))
    model(ids).square().sum().backward()
    before = {key: m._parameters["weight"].detach().clone() for key, m in model.named_children()}
    with torch.no_grad():
        for site, value in _values(adapted).items():
            assert value.grad is not None and value.grad.abs().sum() > 0, site
            value.add_(1.0)
    at = _indices(adapted)
    output = model(ids)
    artifacts.merge(adapted)
    assert torch.allclose(model(ids), output, atol=1e-6)
    for key, old in before.items():
        new = model.get_submodule(key).weight.detach()
        if key == "table":
            old, new = old.t(), new.t()
        moved = (new - old).flatten()
        assert set(moved.nonzero().flatten().tolist()) == set(at[key].tolist())


def test_the_gradient_is_the_dense_one_at_its_entries() -> None:
    adapted, ids = _make(also_train=[])
    model = adapted.model
    model(ids).square().sum().backward()
    twin = Net().eval()
    twin.load_state_dict({k: v for k, v in model.state_dict().items() if "peftx" not in k})
    twin(ids).square().sum().backward()
    for key, at in _indices(adapted).items():
        dense: Any = twin.get_submodule(key).weight.grad
        dense = dense.t() if key == "table" else dense
        mine: Any = _values(adapted)[key].grad
        assert torch.allclose(mine, dense.reshape(-1)[at.long()], atol=1e-6)


def test_the_choice_goes_by_seed_and_site_alone() -> None:
    torch.manual_seed(1)
    first = _indices(_make()[0])
    torch.manual_seed(2)
    again, other = _indices(_make()[0]), _indices(_make(seed=1)[0])
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["qkv"], other["qkv"])
    adapted, _ = _make(targets=["qkv[q]", "qkv[k]"]) if "qkv[q]" in _slices() else _make()
    assert len({tuple(value.tolist()) for value in _indices(adapted).values()}) == len(_indices(adapted))


def _slices() -> list[str]:
    from peftx.adapters.survey import weight_sites

    return [site.key for site in weight_sites(Net())]


def test_meta_models(tmp_path: Any) -> None:
    with torch.device("meta"):
        model = Net()
    assert len(_indices(peftx.attach(model, "core.shira", targets=["qkv"]))["qkv"]) == 6 * 18
    with pytest.raises(AdapterError, match="meta device"):
        peftx.attach(model, "core.shira", name="b", targets=["qkv"], mask="magnitude")


def test_the_bytes_it_will_store_are_known_before() -> None:
    base = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 4)).double()
    explained = peftx.explain(base, "core.shira", targets=["glob:*"], rank=2, also_train=[]).counts
    assert explained == peftx.attach(base, "core.shira", targets=["glob:*"], rank=2, also_train=[]).counts()
