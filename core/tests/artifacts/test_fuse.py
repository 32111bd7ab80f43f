"""Fused adapters answer as active ones do, and whatever comes next starts from the base's own bits."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.adapters import AdapterMethod, Delta
from peftx.config.adapter import AdapterConfig
from peftx.errors import AdapterError, ArtifactError, UnknownNameError


class Net(nn.Module):
    """A table (stored the other way round), a fused projection, a convolution, a tied pair, and a head."""

    peftx_head = "head"

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 8)
        self.conv = nn.Conv1d(8, 6, 3, groups=2)
        self.attn = nn.MultiheadAttention(6, 2, batch_first=True)
        self.one = nn.Linear(6, 6, bias=False)
        self.two = nn.Linear(6, 6, bias=False)
        self.two.weight = self.one.weight
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.conv(self.table(ids).transpose(1, 2)).transpose(1, 2)
        x = x + self.attn(x, x, x, need_weights=False)[0]
        return self.head(self.norm((x + self.two(torch.tanh(self.one(x)))).mean(1)))


IDS = torch.randint(0, 9, (4, 7), generator=torch.Generator().manual_seed(0))
SHIRA = {"rank": 2, "targets": ["glob:*"]}
METHODS: dict[str, dict[str, Any]] = {
    "core.shira": SHIRA,
    "core.lora": {"rank": 2, "targets": ["glob:*"]},
    "core.dora": {"rank": 2, "targets": ["glob:*"]},
    "core.bitfit": {},
    "core.full": {"trunk": "train"},
}


@pytest.fixture
def two(perturb: Callable[..., None]) -> Callable[..., peftx.Adapted]:
    """A model with the adapters `a` and `b` of some methods, each of which does something."""

    def make(first: str, second: str, dtype: torch.dtype = torch.float32, **changes: Any) -> peftx.Adapted:
        torch.manual_seed(0)
        model = Net().to(dtype).eval()
        for name, method in (("a", first), ("b", second)):
            adapted = peftx.attach(model, method, name=name, **(METHODS[method] | changes))
            perturb(adapted.parameters(), seed=ord(name))
        return adapted

    return make


def base_of(adapted: peftx.Adapted) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in adapted.model.state_dict().items() if "peftx" not in k}


def is_base(adapted: peftx.Adapted, base: dict[str, Tensor]) -> bool:
    now = adapted.model.state_dict()
    model: Any = adapted.model
    tied = model.one._parameters["weight"] is model.two._parameters["weight"]
    return tied and all(torch.equal(now[key], value) for key, value in base.items())


def answers(adapted: peftx.Adapted) -> dict[str, Tensor]:
    """What the model answers under each adapter."""
    found = {}
    for name in ("a", "b"):
        with torch.no_grad():
            found[name] = adapted.activate(name).model(IDS)
    adapted.activate()
    return found


@pytest.mark.parametrize("first", METHODS)
@pytest.mark.parametrize("second", ["core.shira", "core.dora"])
def test_on_to_another_and_off(two: Callable[..., peftx.Adapted], first: str, second: str) -> None:
    adapted = two(first, second)
    base, wanted = base_of(adapted), answers(adapted)
    model = adapted.model
    artifacts.fuse(adapted, "a")
    assert adapted.fused == ("a",) and adapted.active == () and not list(adapted.parameters())
    assert torch.allclose(model(IDS), wanted["a"], atol=1e-5) and not is_base(adapted, base)
    artifacts.fuse(adapted, "b")
    assert adapted.fused == ("b",) and torch.allclose(model(IDS), wanted["b"], atol=1e-5)
    artifacts.fuse(adapted, "a")
    assert torch.allclose(model(IDS), wanted["a"], atol=1e-5)
    assert adapted.unfuse() is adapted and adapted.fused == () and is_base(adapted, base)
    assert adapted.unfuse().fused == ()  # again is nothing


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("names", [("a",), ("a", "b")], ids=str)
def test_the_bits_of_a_merge(
    two: Callable[..., peftx.Adapted], dtype: torch.dtype, names: tuple[str, ...]
) -> None:
    adapted = two("core.shira", "core.shira", dtype)
    twin = copy.deepcopy(adapted)
    for name in {"a", "b"} - set(names):
        twin.remove(name)
    for check in (True, False):
        merged = copy.deepcopy(twin)
        artifacts.merge(merged, *names, check=check, force=check)
        artifacts.fuse(adapted, *names)
        now = adapted.model.state_dict()
        assert all(torch.equal(now[key], value) for key, value in merged.model.state_dict().items())


def test_only_entries_are_written_and_kept(two: Callable[..., peftx.Adapted]) -> None:
    adapted = two("core.shira", "core.shira")
    artifacts.fuse(adapted, "a")
    fused: Any = adapted.model._peftx_board.fused
    whole = {id(change[0]) for change in fused.kept.changes}
    model: Any = adapted.model
    # the tied pair wants two different updates; the head is the adapter's own
    assert whole == {id(model.one), id(model.two), id(model.head.weight), id(model.head.bias)}
    assert {tuple(target.shape) for target in fused.table.targets} == {(9, 8), (6, 4, 3), (18, 6), (6, 6)}
    sites = {site.key: site for site in adapted.attachment("a").plan}
    entries = sum(len(t) for (key, slot), t in adapted.tensors("a").items() if slot == "v" and key in sites)
    tied = 2 * len(adapted.tensors("a")["one", "v"])
    assert sum(fused.table.counts) == entries - tied == fused.table.values.numel()


@pytest.mark.parametrize("method", ["core.shira", "core.lora"])
def test_what_comes_next_stands_on_the_base(
    two: Callable[..., peftx.Adapted], method: str, tmp_path: Path
) -> None:
    adapted = two(method, method)
    base, wanted = base_of(adapted), answers(adapted)
    model = adapted.model
    artifacts.save(adapted.activate("a"), tmp_path / "before", "a")

    artifacts.fuse(adapted, "a")
    with adapted.disabled():
        assert is_base(adapted, base) and adapted.fused == ()
    with adapted.per_sample(["a", None, "b", "a"]):
        mixed = model(IDS)
    assert torch.allclose(mixed[[0, 3]], wanted["a"][[0, 3]], atol=1e-5)
    assert torch.allclose(mixed[2], wanted["b"][2], atol=1e-5)
    artifacts.save(adapted, tmp_path / "after", "a")
    with adapted.context(user=1):
        assert adapted.fused == ("a",)
    assert adapted.fused == ("a",) and torch.allclose(model(IDS), wanted["a"], atol=1e-5)
    files = list((tmp_path / "before").iterdir())
    assert len(files) == 2
    for file in files:
        assert file.read_bytes() == (tmp_path / "after" / file.name).read_bytes()

    adapted.remove("b")
    assert adapted.fused == ("a",)
    artifacts.load(model, tmp_path / "after", name="c")
    assert adapted.fused == () and adapted.active == ("c",)
    assert torch.allclose(model(IDS), wanted["a"], atol=1e-5) and is_base(adapted, base)

    artifacts.fuse(adapted, "c")
    adapted.remove("c")
    assert adapted.fused == () and is_base(adapted, base)
    artifacts.fuse(adapted, "a")
    report = artifacts.merge(adapted, probe=IDS)
    assert report.adapters == ("a",) and torch.allclose(model(IDS), wanted["a"], atol=1e-5)


def test_detaching_and_activating_inside_a_block(two: Callable[..., peftx.Adapted]) -> None:
    adapted = two("core.shira", "core.lora")
    base, wanted = base_of(adapted), answers(adapted)
    artifacts.fuse(adapted, "a")
    with adapted.disabled():
        adapted.activate("b")
    assert adapted.fused == () and adapted.active == ("b",)
    assert torch.allclose(adapted.model(IDS), wanted["b"], atol=1e-5)
    artifacts.fuse(adapted)
    assert adapted.fused == ("b",)
    model = adapted.detach()
    assert all(torch.equal(model.state_dict()[key], value) for key, value in base.items())


@pytest.mark.parametrize("method", ["core.shira", "core.lora"])
def test_a_copy_is_fused_for_itself(two: Callable[..., peftx.Adapted], method: str) -> None:
    adapted = two(method, method)
    base, wanted = base_of(adapted), answers(adapted)
    artifacts.fuse(adapted, "a")
    twin = peftx.adapted(copy.deepcopy(adapted.model))
    assert twin.fused == ("a",) and torch.allclose(twin.model(IDS), wanted["a"], atol=1e-5)
    twin.unfuse()
    assert is_base(twin, base) and adapted.fused == ("a",) and not is_base(adapted, base)
    artifacts.fuse(twin, "b")
    adapted.unfuse()
    assert is_base(adapted, base) and torch.allclose(twin.model(IDS), wanted["b"], atol=1e-5)


def test_weights_that_were_changed_or_loaded_again(two: Callable[..., peftx.Adapted]) -> None:
    adapted = two("core.shira", "core.shira")
    base, wanted = base_of(adapted), answers(adapted)
    artifacts.fuse(adapted, "a")
    model: Any = adapted.model
    model.load_state_dict(base, strict=False)
    for act in (adapted.unfuse, adapted.activate, adapted.detach, lambda: artifacts.fuse(adapted, "b")):
        with pytest.raises(AdapterError, match=r"while a was fused into it.*unfuse\(restore=False\)"):
            act()
    adapted.unfuse(restore=False)
    assert adapted.fused == () and is_base(adapted, base)
    assert torch.allclose(adapted.activate("b").model(IDS), wanted["b"], atol=1e-5)


class Wild(Delta):
    """Something to make a merge fail after the entries were written: it overflows half precision."""

    def __init__(self, site: Any, config: Any, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(site)
        self.scale = nn.Parameter(torch.full((), 1e6))

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight * self.scale.to(weight.dtype), bias


class Wilder(AdapterMethod):
    Config = AdapterConfig
    Delta = Wild
    kinds = ("linear",)


def test_a_failure_leaves_the_base(two: Callable[..., peftx.Adapted]) -> None:
    adapted = two("core.shira", "core.shira", torch.float16, also_train=[])
    adapted.attach(Wilder, name="wild", targets=["head"], also_train=[])
    adapted.activate()
    base = base_of(adapted)
    for before in ((), ("b",)):
        if before:
            artifacts.fuse(adapted, *before)
        with pytest.raises(ArtifactError, match="overflows float16"):
            artifacts.fuse(adapted, "a", "wild")
        assert adapted.fused == () and is_base(adapted, base)
    with torch.no_grad():
        adapted.tensors("a")["conv", "v"].fill_(6e4)
        adapted.model.conv._parameters["weight"].fill_(6e4)
    base = base_of(adapted)
    with pytest.raises(ArtifactError, match="overflows float16"):
        artifacts.fuse(adapted, "a")
    assert is_base(adapted, base)
    with torch.no_grad():
        adapted.tensors("a")["conv", "v"][0] = float("nan")
    artifacts.fuse(adapted, "b")
    with pytest.raises(ArtifactError, match="holds NaN or Inf"):
        artifacts.fuse(adapted, "a")
    assert adapted.fused == ("b",)


def test_after_a_bare_merge_the_weights_are_anybodys(two: Callable[..., peftx.Adapted]) -> None:
    adapted = two("core.shira", "core.shira")
    adapted.remove("b")
    artifacts.merge(adapted, "a", check=False)
    with torch.no_grad():
        adapted.model.conv.weight.add_(1)
    adapted = peftx.attach(adapted.model, "core.shira", **SHIRA)
    artifacts.fuse(adapted)
    assert adapted.fused == ("default",)


def test_a_fused_model_goes_with_its_last_user(two: Callable[..., peftx.Adapted]) -> None:
    adapted = two("core.shira", "core.shira")
    artifacts.fuse(adapted, "a")
    weight = weakref.ref(adapted.model.conv._parameters["weight"])
    del adapted
    gc.collect()
    assert weight() is None


def test_wrong_names_are_refused(two: Callable[..., peftx.Adapted]) -> None:
    adapted = two("core.shira", "core.shira").activate()
    with pytest.raises(AdapterError, match="name those to fuse: a, b"):
        artifacts.fuse(adapted)
    with pytest.raises(AdapterError, match="cannot be fused twice"):
        artifacts.fuse(adapted, "a", "a")
    with pytest.raises(UnknownNameError):
        artifacts.fuse(adapted, "c")
    assert adapted.fused == ()


def test_slices_stored_the_other_way_round(perturb: Callable[..., None]) -> None:
    """GPT-2 keeps q, k and v in one weight of (in, 3 out): three sites share its lines."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_layer=1, n_embd=16, n_head=2, vocab_size=23, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    adapted = peftx.attach(
        model, "core.shira", rank=1, targets=["attention.q", "attention.v", "mlp"], also_train=[]
    )
    assert any(site.rows is not None for site in adapted.attachment().plan)
    perturb(adapted.parameters())
    base = {k: v.clone() for k, v in model.state_dict().items()}
    ids = torch.randint(0, 23, (2, 6))
    wanted = model(ids).logits
    artifacts.fuse(adapted)
    board: Any = model._peftx_board
    assert not board.fused.kept.changes and len(board.fused.table.targets) == 3
    assert torch.allclose(model(ids).logits, wanted, atol=1e-5) and not torch.equal(
        adapted.unfuse().model(ids).logits, wanted
    )
    assert all(torch.equal(model.state_dict()[key], value) for key, value in base.items())
