"""Role tables of openai-whisper and open_clip, against the real models at tiny size."""

from __future__ import annotations

import pytest
import torch

from peftx.adapters.roles import head_of, lm_head_of, roles_of


@pytest.fixture
def whisper_model():
    model = pytest.importorskip("whisper.model", reason="openai-whisper is not installed")
    return model.Whisper(model.ModelDimensions(8, 16, 16, 2, 2, 32, 16, 16, 2, 2))


BLOCK = {
    "attn.query": "attention.q",
    "attn.key": "attention.k",
    "attn.value": "attention.v",
    "attn.out": "attention.out",
    "attn_ln": "norm",
}
CROSS = {
    "cross_attn.query": "cross_attention.q",
    "cross_attn.key": "cross_attention.k",
    "cross_attn.value": "cross_attention.v",
    "cross_attn.out": "cross_attention.out",
    "cross_attn_ln": "norm",
}
MLP = {"mlp.0": "mlp.up", "mlp.2": "mlp.down", "mlp_ln": "norm"}


def test_whisper(whisper_model, check_complete, role_map, loose_map, groups):
    check_complete(whisper_model)
    assert role_map(whisper_model, "encoder.blocks.0.") == {**BLOCK, **MLP}
    assert role_map(whisper_model, "decoder.blocks.0.") == {**BLOCK, **CROSS, **MLP}
    assert role_map(whisper_model, "encoder.conv") == {"1": "embedding.patch", "2": "embedding.patch"}
    assert role_map(whisper_model, "decoder.token_embedding") == {"": "embedding.token"}
    assert loose_map(whisper_model) == {"decoder.positional_embedding": "embedding.position"}
    assert groups(whisper_model)["decoder.blocks.1.mlp"] == [
        "decoder.blocks.1.mlp.0",
        "decoder.blocks.1.mlp.2",
    ]
    assert head_of(whisper_model) == ()
    assert lm_head_of(whisper_model) == ()


VISION = {"layers": 2, "width": 64, "head_width": 32, "patch_size": 8, "image_size": 16}
TEXT = {"context_length": 8, "vocab_size": 32, "width": 64, "heads": 2, "layers": 2}
CLIP_BLOCK = {
    "ln_1": "norm",
    "attn": "attention.qkv[q,k,v]",
    "attn.out_proj": "attention.out",
    "ln_2": "norm",
    "mlp.c_fc": "mlp.up",
    "mlp.c_proj": "mlp.down",
}


@pytest.fixture
def clip():
    return pytest.importorskip("open_clip.model", reason="open_clip is not installed")


def test_open_clip(clip, check_complete, role_map, loose_map, groups):
    model = clip.CLIP(16, VISION, TEXT)
    check_complete(model)
    assert role_map(model, "visual.transformer.resblocks.0.") == CLIP_BLOCK
    assert role_map(model, "transformer.resblocks.0.") == CLIP_BLOCK
    assert role_map(model, "visual.conv1") == {"": "embedding.patch"}
    assert groups(model)["transformer.resblocks.0.attn"] == [
        "transformer.resblocks.0.attn",
        "transformer.resblocks.0.attn.out_proj",
    ]
    assert loose_map(model) == {
        "positional_embedding": "embedding.position",
        "text_projection": "projection",
        "logit_scale": "scale",
        "visual.class_embedding": "embedding.class",
        "visual.positional_embedding": "embedding.position",
        "visual.proj": "projection",
    }
    assert head_of(model) == ()


def test_open_clip_variants(clip, check_complete, role_map, loose_map):
    pooled = {**VISION, "attentional_pool": True, "attn_pooler_queries": 4, "attn_pooler_heads": 2}
    custom = clip.CustomTextCLIP(16, pooled, {**TEXT, "proj_bias": True})
    check_complete(custom)
    assert role_map(custom, "text.transformer.resblocks.0.") == CLIP_BLOCK
    assert role_map(custom, "visual.attn_pool.") == {
        "attn": "pooler",
        "attn.out_proj": "pooler",
        "ln_q": "norm",
        "ln_k": "norm",
    }
    assert role_map(custom, "text.text_projection") == {"": "projection"}
    assert loose_map(custom)["visual.attn_pool.query"] == "embedding.class"
    convolutional = clip.CLIP(16, {"layers": (1, 1, 1, 1), "width": 16, "image_size": 32}, TEXT)
    hits = check_complete(convolutional)
    assert hits["visual.layer1.0.conv1"].family == "open-clip-resnet"
    assert role_map(convolutional, "visual.attnpool.") == dict.fromkeys(
        ("k_proj", "q_proj", "v_proj", "c_proj"), "pooler"
    )


def test_open_clip_custom_attention(clip, check_complete, loose_map):
    """The block with scaled cosine attention holds its packed weight as a loose parameter."""
    from open_clip.transformer import CustomResidualAttentionBlock

    block = CustomResidualAttentionBlock(16, 2, scale_cosine_attn=True, scale_heads=True)
    check_complete(block)
    assert loose_map(block)["attn.in_proj_weight"] == "attention.qkv[q,k,v]"


def test_coca_cross_attention(clip, check_complete, role_map):
    coca = pytest.importorskip("open_clip.coca_model")
    model = coca.CoCa(
        16,
        coca.MultimodalCfg(width=64, heads=2, layers=1, context_length=8, vocab_size=32),
        clip.CLIPTextCfg(**TEXT),
        clip.CLIPVisionCfg(**VISION, attentional_pool=True, attn_pooler_queries=4, attn_pooler_heads=2),
    )
    check_complete(model)
    assert role_map(model, "text_decoder.cross_attn.0.") == {
        "ln_1": "norm",
        "attn": "cross_attention.qkv[q,k,v]",
        "attn.out_proj": "cross_attention.out",
        "ln_1_kv": "norm",
        "ln_2": "norm",
        "mlp.c_fc": "mlp.up",
        "mlp.c_proj": "mlp.down",
    }


def test_open_clip_around_a_timm_tower(clip, check_complete):
    pytest.importorskip("timm", reason="timm is not installed")
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "image_size": 32}
    hits = check_complete(clip.CustomTextCLIP(16, vision, TEXT))
    assert hits["visual.trunk.blocks.0.attn.qkv"].family == "timm-vit"
    assert hits["visual.trunk.blocks.0.attn.qkv"].parts == ("q", "k", "v")
    assert hits["visual.head.proj"].role == "projection"


def test_sequence_first_towers_say_so(clip):
    """Old towers run (T, B, D) inside their blocks; norms outside the blocks see (B, T, D) either way."""
    from open_clip.transformer import Transformer

    class Tower(torch.nn.Module):
        def __init__(self, batch_first: bool) -> None:
            super().__init__()
            self.ln_pre = torch.nn.LayerNorm(16)
            self.transformer = Transformer(16, 1, 2, batch_first=batch_first)

    old = roles_of(Tower(batch_first=False))
    assert not old["transformer.resblocks.0.mlp.c_fc"].batch_first
    assert not old["transformer.resblocks.0.attn"].batch_first
    assert old["ln_pre"].batch_first
    assert all(hit.batch_first for hit in roles_of(Tower(batch_first=True)).values())
