"""Weights of the original ViT release: a file written from a timm ViT gives that ViT; nothing passes half loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import nn

from peftx.errors import ModelError
from peftx_vision.config.tasks import TimmConfig, VitMicroConfig
from peftx_vision.models import timm_models
from peftx_vision.models.npz import fit_npz
from peftx_vision.models.registered import vit_micro
from peftx_vision.models.timm_models import build_timm
from peftx_vision.models.weights import provenance

SMALL = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}
Arrays = dict[str, np.ndarray]


def vit(num_classes: int = 7, seed: int = 1, **options: object) -> Any:
    torch.manual_seed(seed)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=num_classes, **{**SMALL, **options})
    with torch.no_grad():
        for value in model.parameters():
            value.normal_()
    return model


def released(model: Any, prefix: str = "") -> Arrays:
    """The weights under the names and in the shapes of the release: kernels (in, out), heads as an axis."""
    state = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    width, heads = model.embed_dim, model.blocks[0].attn.num_heads
    found: Arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        "Transformer/posembed_input/pos_embedding": state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for number in range(len(model.blocks)):
        own, theirs = f"blocks.{number}.", f"Transformer/encoderblock_{number}/"
        attention = f"{theirs}MultiHeadDotProductAttention_1/"
        for name, norm in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            found[f"{theirs}{name}/scale"] = state[f"{own}{norm}.weight"]
            found[f"{theirs}{name}/bias"] = state[f"{own}{norm}.bias"]
        weights = state[f"{own}attn.qkv.weight"].reshape(3, heads, width // heads, width)
        biases = state[f"{own}attn.qkv.bias"].reshape(3, heads, width // heads)
        for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            found[f"{attention}{name}/kernel"] = weight.transpose(2, 0, 1)
            found[f"{attention}{name}/bias"] = bias
        out = state[f"{own}attn.proj.weight"]
        found[f"{attention}out/kernel"] = out.T.reshape(heads, width // heads, width)
        found[f"{attention}out/bias"] = state[f"{own}attn.proj.bias"]
        for layer in (0, 1):
            dense = f"{theirs}MlpBlock_3/Dense_{layer}/"
            found[f"{dense}kernel"] = state[f"{own}mlp.fc{layer + 1}.weight"].T
            found[f"{dense}bias"] = state[f"{own}mlp.fc{layer + 1}.bias"]
    return {prefix + name: value for name, value in found.items()}


def put(path: Path, arrays: Arrays) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_the_loaded_model_equals_the_source(tmp_path: Path, prefix: str) -> None:
    source = vit().eval()
    path = put(tmp_path / "ViT.npz", released(source, prefix))
    loaded = vit(seed=2).eval()
    assert fit_npz(loaded, path) == []
    for name, value in source.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded(images), source(images))


def test_another_number_of_classes_keeps_the_new_head(tmp_path: Path) -> None:
    source = vit()
    arrays = released(source) | {"pre_logits/kernel": np.zeros((16, 16)), "pre_logits/bias": np.zeros(16)}
    loaded = vit(4, seed=2)
    head = loaded.head.weight.clone()
    assert fit_npz(loaded, put(tmp_path / "a.npz", arrays)) == [
        "weights a.npz: its head for 7 classes is dropped, a new one is trained",
        "weights a.npz: its representation layer before the head (pre_logits) is left out",
    ]
    assert torch.equal(loaded.head.weight, head)
    assert torch.equal(loaded.blocks[1].mlp.fc2.weight, source.blocks[1].mlp.fc2.weight)
    bare = {name: value for name, value in released(source).items() if not name.startswith("head")}
    assert "it has no head" in fit_npz(loaded, put(tmp_path / "b.npz", bare))[0]
    assert fit_npz(vit(0), tmp_path / "b.npz") == []


def test_positions_of_another_size_are_resampled_as_timm_does(tmp_path: Path) -> None:
    source = vit()
    path = put(tmp_path / "a.npz", released(source))
    larger = vit(seed=2, img_size=64)
    fit_npz(larger, path)
    expected = resample_abs_pos_embed(
        source.pos_embed.detach(), new_size=[8, 8], interpolation="bilinear", antialias=False
    )
    assert larger.pos_embed.shape == (1, 65, 16) and torch.equal(larger.pos_embed, expected)
    assert torch.equal(larger.cls_token, source.cls_token)


def test_one_channel(tmp_path: Path) -> None:
    source = vit()
    grey = vit(seed=2, in_chans=1)
    notes = fit_npz(grey, put(tmp_path / "a.npz", released(source)))
    assert notes == ["first convolution: 3 input channels turned into 1"]
    assert torch.allclose(
        grey.patch_embed.proj.weight, source.patch_embed.proj.weight.sum(1, keepdim=True), atol=1e-5
    )


def drop(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


@pytest.mark.parametrize(
    ("model", "change", "sentence"),
    [
        (
            {"embed_dim": 32},
            dict,
            "a.npz does not fit VisionTransformer: it is 16 wide, the model is 32 wide; choose",
        ),
        ({"depth": 1}, dict, "it has 2 blocks, the model has 1 blocks; choose the model of the file"),
        ({"depth": 3}, dict, "it has 2 blocks, the model has 3 blocks"),
        ({"mlp_ratio": 2}, dict, "does not fit VisionTransformer: The size of tensor a"),
        ({"init_values": 1e-5}, dict, r"it has nothing for blocks\.0\.ls1\.gamma, so this is another kind"),
        ({"reg_tokens": 2}, dict, "does not fit VisionTransformer"),
        ({}, drop("cls"), "does not fit VisionTransformer: .*cls is not a file in the archive"),
        ({}, drop("Transformer/encoderblock_1/LayerNorm_2/scale"), "LayerNorm_2/scale is not a file"),
        ({}, drop("embedding/kernel"), "it has no array embedding/kernel"),
        ({"class_token": False, "global_pool": "avg"}, dict, "does not fit VisionTransformer"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    tmp_path: Path, model: dict[str, Any], change: Callable[[Arrays], Arrays], sentence: str
) -> None:
    path = put(tmp_path / "a.npz", change(released(vit())))
    with pytest.raises(ModelError, match=sentence) as caught:
        fit_npz(vit(seed=2, **model), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no weights file at"),
        (b"", "not a readable weights file"),
        (b"these are not weights", "not a readable weights file"),
        ("cut", "not a readable weights file"),
        ("objects", "embedding/kernel.npy holds objects.* needs to run code"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    tmp_path: Path, content: bytes | str | None, sentence: str
) -> None:
    path = tmp_path / "a.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        put(path, released(vit()) | ({"embedding/kernel": np.array([print])} if content == "objects" else {}))
        if content == "cut":
            path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ModelError, match=sentence) as caught:
        fit_npz(vit(), path)
    assert "\n" not in str(caught.value)


def test_models_that_are_no_vision_transformer(tmp_path: Path) -> None:
    path = put(tmp_path / "a.npz", released(vit()))
    with pytest.raises(
        ModelError, match=r"original ViT release, which ResNet cannot read: give a \.safetensors"
    ):
        fit_npz(timm.create_model("test_resnet"), path)
    with pytest.raises(ModelError, match="which Linear cannot read"):
        fit_npz(nn.Linear(2, 2), path)


def test_the_option_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = vit()
    path = put(tmp_path / "ViT-T_8.npz", released(source))
    monkeypatch.setattr(timm_models, "_create", lambda name, config, outputs: vit(outputs, seed=2))
    model = build_timm("vit_tiny_patch16_224", TimmConfig(weights=path), 3)
    card, notes = provenance(model)
    assert card["weights"] == "ViT-T_8.npz" and len(card["sha256"]) == 64
    assert "head for 7 classes is dropped" in notes[0]
    assert torch.equal(model.blocks[0].norm1.weight, source.blocks[0].norm1.weight)
    with pytest.raises(ModelError, match=r"ViT-T_8\.npz: expected a \.safetensors, \.pt or \.pth file"):
        vit_micro(VitMicroConfig(weights=path), 3)
