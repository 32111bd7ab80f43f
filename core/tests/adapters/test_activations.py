"""Places in activation space, as they are found in models of several libraries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from torch import nn

from peftx.adapters.activations import activation_sites


def _hf_vit() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return transformers.ViTModel(
        transformers.ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=12,
            image_size=8,
            patch_size=4,
        )
    )


def _bert() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return transformers.BertModel(
        transformers.BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12, vocab_size=20
        )
    )


def _whisper() -> nn.Module:
    whisper = pytest.importorskip("whisper")
    return whisper.model.Whisper(whisper.model.ModelDimensions(6, 4, 8, 2, 1, 20, 8, 8, 2, 1))


def _swin() -> nn.Module:
    return pytest.importorskip("timm").create_model(
        "swin_tiny_patch4_window7_224",
        img_size=16,
        patch_size=2,
        window_size=4,
        embed_dim=8,
        depths=(1, 1),
        num_heads=(2, 2),
    )


FOUND: dict[str, tuple[Callable[[], nn.Module], dict[str, tuple[str, int]]]] = {
    "torch": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 12), 1),
        {
            "layers.0": ("block", 8),
            "layers.0.self_attn": ("attention", 8),
            "layers.0.multihead_attn": ("cross_attention", 8),
        },
    ),
    "timm_swin": (
        _swin,
        {
            f"layers.{i}.blocks.0{tail}": (role, 8 * 2**i)
            for i in (0, 1)
            for tail, role in (("", "block"), (".attn", "attention"), (".mlp", "mlp"))
        },
    ),
    "transformers_vit": (
        _hf_vit,
        {"layers.0": ("block", 8), "layers.0.attention": ("attention", 8), "layers.0.mlp": ("mlp", 8)},
    ),
    "transformers_bert": (
        _bert,  # its feed-forward layers stand in the block itself
        {"encoder.layer.0": ("block", 8), "encoder.layer.0.attention": ("attention", 8)},
    ),
    "openai_whisper": (
        _whisper,
        {
            "encoder.blocks.0": ("block", 8),
            "encoder.blocks.0.attn": ("attention", 8),
            "encoder.blocks.0.mlp": ("mlp", 8),
            "decoder.blocks.0": ("block", 8),
            "decoder.blocks.0.attn": ("attention", 8),
            "decoder.blocks.0.cross_attn": ("cross_attention", 8),
            "decoder.blocks.0.mlp": ("mlp", 8),
        },
    ),
}


@pytest.mark.parametrize("family", list(FOUND))
def test_the_places_of_a_family(family: str) -> None:
    make, expected = FOUND[family]
    assert {s.key: (s.role, s.shape[0]) for s in activation_sites(make())} == expected
