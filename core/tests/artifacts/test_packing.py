"""What is stored in another form than it is trained in: a delta, an insert, an owned parameter and a bank."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import Field
from safetensors.torch import load
from safetensors.torch import save as serialise
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.adapters import AdapterMethod, Delta, Insert, Owned, Site, SitePlan
from peftx.adapters.activations import activation_sites
from peftx.artifacts import manifest as manifests
from peftx.artifacts.state import load_state, save_state
from peftx.config.adapter import AdapterConfig
from peftx.errors import AdapterError, ArtifactError, ConfigError


def rounded(value: Tensor) -> Tensor:
    """In steps of 1/8, straight through."""
    return value + ((value.detach() * 8).round() / 8 - value.detach())


class Eighths:
    """Trained in full, acts in steps of 1/8, stored as int8."""

    packing = "eighths, 1"

    def pack(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            f"{slot}.steps": (value * 8).round().clamp(-127, 127).to(torch.int8)
            for slot, value in state.items()
        }

    def unpack(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if any((steps == -128).any() for steps in stored.values()):
            raise ArtifactError("it holds a step that is never written")
        return {slot.removesuffix(".steps"): steps.float() / 8 for slot, steps in stored.items()}


class EighthsConfig(AdapterConfig):
    targets: list[str] = Field(default=["glob:trunk.*"])
    also_train: list[str] = Field(default=["head"])


class Bank(Eighths, nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.common = nn.Parameter(torch.zeros(3))


class Gain(Eighths, Delta):
    """W' = (1 + g + sum c) W, c in the bank."""

    bank: Bank

    def __init__(self, site: Site, config: Any, weight: Tensor, bias: Tensor | None, bank: Bank) -> None:
        super().__init__(site, bank)
        self.gain = nn.Parameter(torch.zeros(weight.shape[0]))

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight * (1 + rounded(self.gain) + rounded(self.bank.common).sum())[:, None], bias

    @staticmethod
    def param_count(site: Site, config: Any) -> int:
        return site.shape[0]


class Shift(Eighths, Insert):
    """y + v."""

    def __init__(self, site: Site, config: Any, weight: Tensor, bias: Tensor | None, bank: Bank) -> None:
        super().__init__(site, bank)
        self.shift = nn.Parameter(torch.zeros(site.shape[0]))

    def insert(self, x: Tensor) -> Tensor:
        return rounded(self.shift).expand_as(x)


class Head(Eighths, Owned):
    def current(self) -> Tensor:
        return rounded(self.value)


class EighthsMethod(AdapterMethod):
    Config = EighthsConfig
    Delta = Gain
    kinds = ("linear", "activation")
    starts_as = "shifted"

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        blocks = [site for site in activation_sites(model) if site.role == "mlp"]
        return SitePlan(tuple(s for s in super().plan(model, config) if s.kind == "linear")) + SitePlan(
            tuple(blocks)
        )

    def build(self, site: Site, config: Any, weight: Tensor, bias: Any, bank: Any = None) -> Delta:
        return (Shift if site.kind == "activation" else Gain)(site, config, weight, bias, bank)

    def own(self, site: Site, config: Any, value: Tensor | nn.Parameter) -> Owned:
        return Head(site, value)

    def bank(self, plan: SitePlan, config: Any) -> Bank:
        return Bank()

    def bank_count(self, plan: SitePlan, config: Any) -> int:
        return 3

    def bank_bytes(self, plan: SitePlan, config: Any) -> int:
        return 3

    def stored_bytes(self, site: Site, config: Any) -> int:
        return site.shape[0]

    def owned_bytes(self, site: Site, config: Any) -> int:
        return site.numel


@pytest.fixture(autouse=True)
def _found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let artifacts find the method by its name, as they do a plugin's."""
    from peftx.adapters import attachment

    resolve = attachment.resolve_method

    def found(method: Any, config: Any, options: dict[str, Any]) -> Any:
        if method == "mine.eighths":
            _, instance, settings = resolve(EighthsMethod, config, options)
            return "mine.eighths", instance, settings
        return resolve(method, config, options)

    monkeypatch.setattr(attachment, "resolve_method", found)
    monkeypatch.setattr(importlib.import_module("peftx.artifacts.load"), "resolve_method", found)


class Model(nn.Module):
    peftx_head = "head"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential()
        self.trunk.add_module("fc1", nn.Linear(4, 6))
        self.trunk.add_module("act", nn.Tanh())
        self.trunk.add_module("fc2", nn.Linear(6, 5))
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x))


def moved(name: str = "default", seed: int = 1) -> peftx.Adapted:
    adapted = peftx.attach(Model(), "mine.eighths", name=name)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(torch.randn_like(parameter))
    return adapted


def x() -> Tensor:
    torch.manual_seed(9)
    return torch.randn(3, 4)


def rewrite(folder: Path, tensors: dict[str, Tensor], **fields: Any) -> None:
    """Replace the tensors of a folder, and what its manifest says of them."""
    payload = serialise(tensors)
    (folder / "adapter.safetensors").write_bytes(payload)
    said = json.loads((folder / "adapter.json").read_text())
    for record in said["tensors"]:
        tensor = tensors[f"{record['site']}::{record['slot']}"]
        record |= {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    said |= {"tensor_file_sha256": hashlib.sha256(payload).hexdigest()} | fields
    (folder / "adapter.json").write_text(json.dumps(said))


def test_everything_that_packs_is_stored_packed_and_comes_back_bit_for_bit(tmp_path: Path) -> None:
    adapted = moved()
    kinds = {type(packer) for packer in adapted.packers().values()}
    assert kinds == {Gain, Shift, Head, Bank}
    y = adapted.model(x())
    artifacts.save(adapted, tmp_path / "a")
    stored = load((tmp_path / "a" / "adapter.safetensors").read_bytes())
    assert {tensor.dtype for tensor in stored.values()} == {torch.int8}
    assert {"trunk.fc1::gain.steps", "@bank::common.steps", "head.weight::value.steps"} <= stored.keys()
    payload = sum(tensor.nbytes for tensor in stored.values())
    assert payload == adapted.counts().stored_bytes == adapted.explain().counts.stored_bytes
    assert payload == peftx.explain(Model(), "mine.eighths").counts.stored_bytes == adapted.counts().trainable
    again = artifacts.load(Model(), tmp_path / "a")
    assert torch.equal(again.model(x()), y)
    artifacts.save(again, tmp_path / "b")
    for name in ("adapter.json", "adapter.safetensors"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_what_is_trained_is_not_touched_and_can_be_stored_as_it_is(tmp_path: Path) -> None:
    adapted = moved()
    before = {place: tensor.detach().clone() for place, tensor in adapted.tensors().items()}
    artifacts.save(adapted, tmp_path / "a")
    artifacts.save(adapted, tmp_path / "whole", packed=False)
    save_state({"adapter": {slot: t for (_, slot), t in adapted.tensors().items()}}, tmp_path / "state")
    assert load_state(tmp_path / "state")["adapter"].keys() == {"common", "gain", "shift", "value"}
    assert all(torch.equal(tensor, before[place]) for place, tensor in adapted.tensors().items())
    loaded = artifacts.load(Model(), tmp_path / "whole").tensors()
    assert all(torch.equal(tensor, before[place]) for place, tensor in loaded.items())
    twin = peftx.adapted(copy.deepcopy(adapted.model)).tensors()
    assert all(torch.equal(tensor, before[place]) for place, tensor in twin.items())
    packed = artifacts.load(Model(), tmp_path / "a").tensors()
    assert any(not torch.equal(tensor, before[place]) for place, tensor in packed.items())
    assert all(torch.equal(rounded(before[place]), tensor) for place, tensor in packed.items())


def test_readers_that_know_no_packing_refuse_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts.save(moved(), tmp_path / "a")
    artifacts.save(moved(), tmp_path / "whole", packed=False)
    said = {name: json.loads((tmp_path / name / "adapter.json").read_text()) for name in ("a", "whole")}
    assert said["a"]["version"] == 2 and set(said["a"]["packing"].values()) == {"eighths, 1"}
    assert said["whole"]["version"] == 1 and "packing" not in said["whole"]
    monkeypatch.setattr(manifests, "VERSION", 1)
    with pytest.raises(
        ArtifactError, match=r"has format version 2, this peftx reads up to 1; upgrade peftx$"
    ):
        artifacts.load(Model(), tmp_path / "a")
    artifacts.load(Model(), tmp_path / "whole")


def test_a_damaged_or_foreign_form_is_one_sentence_and_leaves_the_model(tmp_path: Path) -> None:
    folder = artifacts.save(moved(), tmp_path / "a")
    tensors = load((folder / "adapter.safetensors").read_bytes())
    said = json.loads((folder / "adapter.json").read_text())
    place = "trunk.fc1::gain.steps"

    def refused(change: dict[str, Tensor], **fields: Any) -> str:
        rewrite(folder, tensors | change, **{"packing": said["packing"], "version": 2} | fields)
        model = Model()
        with pytest.raises(ArtifactError) as error:
            artifacts.load(model, folder)
        assert not hasattr(model, "_peftx_board") and "\n" not in str(error.value)
        return str(error.value)

    other = said["packing"] | {"trunk.fc1": "eighths, 2"}
    assert "packed as 'eighths, 2'" in refused({}, packing=other)
    assert "packs it as 'eighths, 1'; install the version" in refused({}, packing=other)
    assert "is torch.float32 (6,), expected torch.int8 (6,) here" in refused({place: torch.zeros(6)})
    assert "is torch.int8 (7,)" in refused({place: torch.zeros(7, dtype=torch.int8)})
    never = torch.full((6,), -128, dtype=torch.int8)
    assert "trunk.fc1 cannot be unpacked: it holds a step that is never written" in refused({place: never})
    assert "in version 1 none is" in refused({}, version=1)
    assert "'nowhere' is said to be packed" in refused(
        {}, packing=said["packing"] | {"nowhere": "eighths, 1"}
    )
    less = {site: form for site, form in said["packing"].items() if site != "trunk.fc1"}
    assert "its tensors differ" in refused({}, packing=less)
    rewrite(folder, tensors, packing=said["packing"], version=2)
    artifacts.load(Model(), folder)


def test_packed_folders_become_several_adapters_of_one_model(tmp_path: Path) -> None:
    folder = artifacts.save(moved("a"), tmp_path / "a")
    adapted = artifacts.load(Model(), folder)
    y = adapted.model(x())
    artifacts.save(moved("b", seed=2), tmp_path / "b")
    both = artifacts.load(adapted.model, tmp_path / "b")
    assert both.names == ("a", "b")
    both.activate("a")
    assert torch.equal(adapted.model(x()), y)
    with adapted.per_sample(["a", "b", "a"]):
        mixed = adapted.model(x())
    torch.testing.assert_close(mixed[[0, 2]], y[[0, 2]])
    both.remove("b")
    with pytest.raises(ArtifactError, match="cannot be merged"):
        artifacts.merge(adapted)


class OnWeights(EighthsMethod):
    """Without the insert, so that it merges."""

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        return SitePlan(tuple(site for site in super().plan(model, config) if site.kind == "linear"))


@pytest.mark.parametrize("check", [True, False])
def test_merged_is_what_acts(check: bool) -> None:
    adapted = peftx.attach(Model(), OnWeights)
    with torch.no_grad():
        for parameter in adapted.parameters():
            parameter.add_(torch.randn_like(parameter))
        y = adapted.model(x())
        assert torch.equal(adapted.model.head.weight, rounded(adapted.tensors()["head.weight", "value"]))
        artifacts.merge(adapted, check=check)
        torch.testing.assert_close(adapted.model(x()), y)


def test_a_tied_parameter_is_not_packed() -> None:
    class Tied(nn.Module):
        peftx_head = "head"

        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Linear(4, 4)
            self.head = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
            self.head["b"].weight = self.head["a"].weight

    with pytest.raises(
        ConfigError, match=r"one tied parameter, .* 'eighths, 1'; give one of the two in exclude$"
    ):
        peftx.attach(Tied(), EighthsMethod, targets=["trunk"])


def test_a_pack_with_a_mistake_is_told_and_leaves_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted = moved()
    monkeypatch.setattr(Gain, "pack", lambda self, state: [1])
    with pytest.raises(
        AdapterError, match=r"Gain.pack returned list, expected a dict of dense tensors by name$"
    ):
        artifacts.save(adapted, tmp_path / "a")
