"""Weight files: what is read, what is dropped and said, what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from peftx.errors import ModelError
from peftx_vision.models.weights import fit_weights, provenance, read_weights, set_provenance

SMALL = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32, "patch_size": 8}


def vit(num_classes: int = 4, **options: object) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", num_classes=num_classes, **{**SMALL, **options})


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {key: torch.randn_like(value) for key, value in vit(7).state_dict().items()}


def test_every_container_gives_the_same_tensors(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "c.pt")
    torch.save({"model": state, "args": {"lr": 0.1}}, tmp_path / "d.pt")
    for name in ("a.safetensors", "b.pth", "c.pt", "d.pt"):
        found = read_weights(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)


class _Evil:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return print, ("code ran",)


def _write(path: Path, kind: str) -> None:
    if kind == "text":
        path.write_text("these are not weights")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        save_file({"a": torch.zeros(100)}, path)
        path.write_bytes(path.read_bytes()[:-50])
    elif kind == "evil":
        path.write_bytes(pickle.dumps(_Evil()))
    elif kind == "list":
        torch.save([1, 2], path)


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("w.safetensors", "none", "no weights file at"),
        ("w.safetensors", "text", "not a readable weights file"),
        ("w.safetensors", "empty", "not a readable weights file"),
        ("w.safetensors", "cut", "not a readable weights file"),
        ("w.pth", "text", "not a readable weights file"),
        ("w.pth", "empty", "not a readable weights file"),
        ("w.pth", "evil", "not a readable weights file"),
        ("w.pth", "list", "holds no state dict"),
        ("w.npz", "text", r"expected a \.safetensors, \.pt or \.pth file"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_naming_the_file(
    tmp_path: Path, name: str, kind: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    _write(tmp_path / name, kind)
    with pytest.raises(ModelError, match=words) as caught:
        read_weights(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert "code ran" not in capfd.readouterr().out


def test_a_head_of_another_width_is_dropped_and_said(state: dict[str, torch.Tensor]) -> None:
    model = vit(4)
    head = model.head.weight.clone()
    notes = fit_weights(model, state, "w.pth")
    assert len(notes) == 1 and "head for 7 classes is dropped" in notes[0]
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])


def test_a_head_that_fits_is_kept_silently(state: dict[str, torch.Tensor]) -> None:
    model = vit(7)
    assert fit_weights(model, state, "w.pth") == []
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_no_head_in_the_file_is_said(state: dict[str, torch.Tensor]) -> None:
    trunk = {key: value for key, value in state.items() if not key.startswith("head.")}
    assert "has no head" in fit_weights(vit(4), trunk, "w.pth")[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"blocks.0.mlp.fc1.weight": None}, r"blocks\.0\.mlp\.fc1\.weight is missing"),
        ({"blocks.0.extra": torch.zeros(1)}, r"blocks\.0\.extra is not part of the model"),
        ({"blocks.0.mlp.fc1.weight": torch.zeros(3, 3)}, r"has shape \(3, 3\), expected \(64, 16\)"),
    ],
)
def test_any_other_difference_is_refused_and_nothing_is_loaded(
    state: dict[str, torch.Tensor], change: dict[str, torch.Tensor | None], words: str
) -> None:
    for key, value in change.items():
        state.pop(key, None)
        if value is not None:
            state[key] = value
    model = vit(4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=words) as caught:
        fit_weights(model, state, "w.pth")
    assert "w.pth does not fit VisionTransformer" in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_weights_of_another_family_are_refused() -> None:
    with pytest.raises(ModelError, match="does not fit VisionTransformer"):
        fit_weights(vit(), timm.create_model("resnet10t").state_dict(), "resnet.pth")


def test_positions_are_resampled_to_another_size(state: dict[str, torch.Tensor]) -> None:
    model = vit(7, img_size=64)
    assert fit_weights(model, state, "w.pth") == []
    assert model.pos_embed.shape[1] == 65


def test_one_channel_takes_the_sum_of_three(state: dict[str, torch.Tensor]) -> None:
    model = vit(7, in_chans=1)
    notes = fit_weights(model, state, "w.pth")
    assert notes == ["first convolution: 3 input channels turned into 1"]
    expected = state["patch_embed.proj.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(model.patch_embed.proj.weight.detach(), expected)


def test_provenance_stays_with_the_model() -> None:
    model = vit()
    assert provenance(model) == ({}, [])
    set_provenance(model, ["random"], weights=None)
    assert provenance(model) == ({"weights": None}, ["random"])
    assert model.pretrained_cfg["classifier"] == "head"
