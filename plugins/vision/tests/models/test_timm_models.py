"""Any timm name: found or near matches; weights from a file, the hub's cache, or an error within seconds."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from peftx.errors import ModelError, NetworkError
from peftx_vision.config.tasks import TimmConfig
from peftx_vision.models import hub
from peftx_vision.models.timm_models import build_timm
from peftx_vision.models.weights import provenance

NAME = "test_vit"  # timm's own miniature for tests


def random(**options: Any) -> TimmConfig:
    return TimmConfig(pretrained=False, **options)


def test_an_unknown_name_gives_near_matches() -> None:
    with pytest.raises(ModelError, match=r"'vit_tiny_patch16_244'.*Did you mean vit_tiny_patch16_224"):
        build_timm("vit_tiny_patch16_244", random(), 3)
    with pytest.raises(ModelError, match="vit_micro"):
        build_timm("timm:vit_mikro", random(), 3)


def test_the_prefix_and_the_head() -> None:
    model = build_timm(f"timm:{NAME}", random(), 3)
    assert model.head.out_features == 3
    card, notes = provenance(model)
    assert card == {"weights": None} and "starts at random" in notes[0]


def test_input_size_and_channels() -> None:
    model = build_timm(NAME, random(image_size=96, in_chans=1), 3)
    assert model.pretrained_cfg["input_size"] == (1, 96, 96)
    assert model(torch.zeros(1, 1, 96, 96)).shape == (1, 3)
    convolutional = build_timm("test_resnet", random(image_size=48), 3)
    assert convolutional.pretrained_cfg["input_size"] == (3, 48, 48)


def test_an_option_the_model_cannot_have_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("size must be a multiple of the window\nmore")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(
        ModelError, match="cannot build test_vit with num_classes=3, img_size=33: size must"
    ) as caught:
        build_timm(NAME, random(image_size=33), 3)
    assert "\n" not in str(caught.value)


def test_weights_from_a_file(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = {key: torch.randn_like(value) for key, value in timm.create_model(NAME).state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    model = build_timm(NAME, TimmConfig(weights=tmp_path / "w.safetensors"), 3)
    assert torch.equal(model.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    card, notes = provenance(model)
    assert card["weights"] == "w.safetensors" and len(card["sha256"]) == 64
    assert "head for 1000 classes is dropped" in notes[0]


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)


def check(error: NetworkError) -> None:
    text = str(error)
    for part in (NAME, "model.safetensors", "--model.weights FILE", "--model.pretrained false"):
        assert part in text
    assert "\n" not in text


@pytest.mark.usefixtures("empty_cache")
def test_offline_names_the_file_and_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        hub.urllib.request, "urlopen", lambda *_, **__: pytest.fail("the network was touched")
    )
    with pytest.raises(NetworkError, match="the network is off") as caught:
        build_timm(NAME, TimmConfig(), 3, offline=True)
    check(caught.value)


@pytest.mark.usefixtures("empty_cache")
def test_a_hub_out_of_reach_fails_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setattr(hub, "hf_hub_url", lambda *_: f"http://127.0.0.1:{port}/x")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    start = time.monotonic()
    with pytest.raises(NetworkError, match="out of reach") as caught:
        build_timm(NAME, TimmConfig(), 3)
    check(caught.value)
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("empty_cache")
def test_a_refused_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> str:
        raise OSError("403 Client Error\nmany more lines")

    monkeypatch.setattr(hub, "_unreachable", lambda url: "")
    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(ModelError, match="403 Client Error; give the file") as caught:
        build_timm(NAME, TimmConfig(), 3)
    assert "\n" not in str(caught.value)


def test_the_hubs_cache_is_used_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    save_file(timm.create_model(NAME).state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_: str(tmp_path / "model.safetensors"))
    model = build_timm(NAME, TimmConfig(), 3, offline=True)
    assert provenance(model)[0]["weights"].startswith("timm/")
