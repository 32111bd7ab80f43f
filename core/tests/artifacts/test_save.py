"""What is saved is what comes back, bit for bit; and a writer that is stopped loses nothing."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import peftx
from peftx import artifacts
from peftx.errors import AdapterError, ArtifactError, ConfigError

METHODS: dict[str, dict[str, Any]] = {
    "core.full": {},
    "core.head": {},
    "core.bitfit": {},
    "core.lora": {"targets": ["glob:*"], "rank": 2, "rank_pattern": {"table": 3}},
    "core.rslora": {"targets": ["attention.q", "attention.out"], "rank": 2, "init": "gaussian"},
    "core.dora": {"targets": ["glob:*"], "rank": 2},
}


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _bits(adapted: peftx.Adapted, name: str | None = None) -> dict[Any, Tensor]:
    return {key: value.detach().clone() for key, value in adapted.tensors(name).items()}


def test_a_round_trip_is_bit_equal(
    build: Callable[..., nn.Module], ids: Tensor, method: str, perturb: Any, tmp_path: Path
) -> None:
    model = build()
    adapted = peftx.attach(model, method, **METHODS[method])
    perturb(adapted.parameters())
    output, tensors, counts = model(ids), _bits(adapted), adapted.counts()
    config = adapted.attachment().config
    assert artifacts.save(adapted, tmp_path / "new" / "folder") == tmp_path / "new" / "folder"
    adapted.detach()

    other = build()
    generator = torch.get_rng_state()
    loaded = artifacts.load(other, tmp_path / "new" / "folder")
    assert torch.equal(torch.get_rng_state(), generator), "loading must not move the random numbers"
    assert torch.equal(other(ids), output)
    assert loaded.names == loaded.active == ("default",)
    assert loaded.counts() == counts
    again = _bits(loaded)
    assert again.keys() == tensors.keys()
    assert all(
        torch.equal(again[key], value) and again[key].dtype == value.dtype for key, value in tensors.items()
    )
    assert loaded.attachment().config == config and loaded.attachment().method_name == method
    other(ids).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters()), "a loaded adapter goes on training"
    loaded.detach()
    assert torch.equal(other(ids), build()(ids))


def test_saving_twice_gives_the_same_bytes(
    build: Callable[..., nn.Module], method: str, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        adapted = peftx.attach(build(), method, **METHODS[method])
        with torch.no_grad():
            for value in adapted.tensors().values():
                value.fill_(0.5)
        artifacts.save(adapted, tmp_path / folder)
    for file in ("adapter.json", "adapter.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["adapter.json", "adapter.safetensors"]


def test_tied_parameters_are_stored_once_and_stay_tied(
    build: Callable[..., nn.Module], perturb: Any, tmp_path: Path
) -> None:
    adapted = peftx.attach(build(), "core.full")
    perturb(adapted.parameters())
    artifacts.save(adapted, tmp_path)
    manifest = artifacts.read_manifest(tmp_path)
    assert {r.site: r.alias for r in manifest.tensors if r.alias} == {"words.weight": "table.weight::value"}
    loaded = artifacts.load(build(), tmp_path)
    tensors = loaded.tensors()
    assert tensors["table.weight", "value"] is tensors["words.weight", "value"]
    assert (tmp_path / "adapter.safetensors").stat().st_size < 1.5 * loaded.counts().stored_bytes


def test_under_another_name_beside_others_and_into_a_copy(
    build: Callable[..., nn.Module], ids: Tensor, perturb: Any, tmp_path: Path
) -> None:
    model = build()
    adapted = peftx.attach(model, "core.lora", name="a", rank=2)
    perturb(adapted.parameters())
    a = model(ids)
    adapted.attach("core.dora", name="b", rank=2)
    perturb(adapted.parameters())
    b = model(ids)
    with pytest.raises(AdapterError, match="name one"):
        artifacts.save(adapted.activate("a", "b"), tmp_path / "x")
    artifacts.save(adapted, tmp_path / "a", name="a")
    artifacts.save(adapted.activate("b"), tmp_path / "b")

    twin = copy.deepcopy(model)
    handle = artifacts.load(twin, tmp_path / "a", name="again")
    assert handle.names == ("a", "b", "again") and handle.active == ("again",)
    assert torch.equal(twin(ids), a)
    assert torch.equal(model(ids), b) and adapted.names == ("a", "b"), "the original is another model"
    with pytest.raises(ConfigError, match="attached already"):
        artifacts.load(twin, tmp_path / "b")
    assert handle.names == ("a", "b", "again") and handle.active == ("again",)
    artifacts.load(twin, tmp_path / "b", name="c")
    assert torch.equal(twin(ids), b)


def test_the_manifest_says_where_everything_goes(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    adapted = peftx.attach(build(), "core.lora", targets=["attention.q", "attention.v"], rank=2)
    artifacts.save(adapted, tmp_path)
    manifest = artifacts.read_manifest(tmp_path)
    assert manifest.method == "core.lora" and manifest.config["rank"] == 2 and manifest.version == 1
    assert manifest.peftx == peftx.__version__ and manifest.base_class.endswith("Net")
    sites = {site.key: site for site in manifest.sites}
    assert set(sites) == {"attn.in_proj[q]", "attn.in_proj[v]", "head.weight", "head.bias"}
    assert sites["attn.in_proj[v]"].rows == [16, 24] and sites["attn.in_proj[v]"].role == "attention.v"
    assert sites["head.bias"].owned and not sites["attn.in_proj[q]"].owned
    assert {(t.site, t.slot) for t in manifest.tensors} == set(adapted.tensors())


def test_the_base_is_not_written(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    adapted = peftx.attach(build(), "core.lora", rank=2)
    artifacts.save(adapted, tmp_path)
    from safetensors.torch import load_file

    stored = load_file(tmp_path / "adapter.safetensors")
    assert sum(t.numel() for t in stored.values()) == adapted.counts().trainable


def test_a_place_that_cannot_be_written_is_one_sentence(
    build: Callable[..., nn.Module], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    adapted = peftx.attach(build(), "core.head")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ArtifactError, match="cannot be written to"):
            artifacts.save(adapted, place)


class Stop(BaseException):
    """As a signal would."""


@pytest.mark.parametrize("survive", [0, 1, 2])
@pytest.mark.parametrize("operation", ["replace", "write_bytes", "write_text"])
def test_a_stopped_writer_leaves_a_whole_adapter(
    build: Callable[..., nn.Module],
    ids: Tensor,
    perturb: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    survive: int,
) -> None:
    model = build()
    adapted = peftx.attach(model, "core.lora", rank=2)
    perturb(adapted.parameters())
    artifacts.save(adapted, tmp_path)
    old = model(ids)
    perturb(adapted.parameters(), seed=9)
    new = model(ids)
    done = 0
    original = getattr(Path, operation)

    def stops(self: Path, *args: Any, **kwargs: Any) -> Any:
        nonlocal done
        if done == survive:
            raise Stop
        done += 1
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, operation, stops)
    stopped = False
    try:
        artifacts.save(adapted, tmp_path)
    except Stop:
        stopped = True
    monkeypatch.undo()
    other = build()
    handle = artifacts.load(other, tmp_path)
    found = other(ids)
    assert torch.equal(found, new) or (stopped and torch.equal(found, old))
    assert stopped or torch.equal(found, new)

    artifacts.save(adapted, tmp_path)
    handle.detach()
    artifacts.load(other, tmp_path)
    assert torch.equal(other(ids), new)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter.json", "adapter.safetensors"]


def test_the_file_holds_plain_json(build: Callable[..., nn.Module], tmp_path: Path) -> None:
    artifacts.save(peftx.attach(build(), "core.dora", rank=2), tmp_path)
    text = (tmp_path / "adapter.json").read_text(encoding="utf-8")
    assert json.loads(text)["format"] == "peftx-adapter" and text.endswith("\n")
