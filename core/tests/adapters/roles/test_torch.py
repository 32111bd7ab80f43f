"""Role tables of plain torch transformers, packed attention and torchvision, against the real modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peftx.adapters.roles import head_of, roles_of, select

ENCODER_LAYER = {
    "self_attn": "attention.qkv[q,k,v]",
    "self_attn.out_proj": "attention.out",
    "linear1": "mlp.up",
    "linear2": "mlp.down",
    "norm1": "norm",
    "norm2": "norm",
}
DECODER_LAYER = {
    "self_attn": "attention.qkv[q,k,v]",
    "self_attn.out_proj": "attention.out",
    "multihead_attn": "cross_attention.qkv[q,k,v]",
    "multihead_attn.out_proj": "cross_attention.out",
    "linear1": "mlp.up",
    "linear2": "mlp.down",
    "norm1": "norm",
    "norm2": "norm",
    "norm3": "norm",
}


def test_transformer(check_complete, role_map, groups):
    model = nn.Transformer(16, 2, 2, 2, 32, batch_first=True)
    check_complete(model)
    assert role_map(model, "encoder.layers.0.") == ENCODER_LAYER
    assert role_map(model, "decoder.layers.0.") == DECODER_LAYER
    assert role_map(model, "decoder.norm") == {"": "norm"}
    assert groups(model)["decoder.layers.0.multihead_attn"] == [
        "decoder.layers.0.multihead_attn",
        "decoder.layers.0.multihead_attn.out_proj",
    ]
    assert groups(model)["encoder.layers.1.mlp"] == ["encoder.layers.1.linear1", "encoder.layers.1.linear2"]
    assert all(hit.batch_first for hit in roles_of(model).values())


@pytest.mark.parametrize("batch_first", [True, False])
def test_layers_alone(batch_first, role_map, groups):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=batch_first)
    assert role_map(layer, "") == ENCODER_LAYER
    assert set(groups(layer)) == {"self_attn", "mlp"}
    assert {hit.batch_first for hit in roles_of(layer).values()} == {batch_first}
    assert role_map(nn.TransformerDecoderLayer(16, 2, 32), "") == DECODER_LAYER


def test_sequence_first_in_a_batch_first_model():
    model = nn.Sequential(nn.Linear(16, 16), nn.TransformerEncoderLayer(16, 2, 32))
    hits = roles_of(model)
    assert hits["0"].batch_first
    assert not hits["1.linear1"].batch_first


def test_bare_packed_attention(check_complete, role_map, groups):
    assert role_map(nn.MultiheadAttention(16, 2), "") == {
        "": "attention.qkv[q,k,v]",
        "out_proj": "attention.out",
    }
    assert set(groups(nn.MultiheadAttention(16, 2))) == {"attn"}

    class Mine(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.near = nn.MultiheadAttention(16, 2, batch_first=True)
            self.far = nn.MultiheadAttention(16, 2, kdim=8, vdim=8)

    model = Mine()
    hits = check_complete(model)
    assert role_map(model, "far") == {"": "attention.qkv[q,k,v]", ".out_proj": "attention.out"}
    assert (hits["near"].batch_first, hits["far"].batch_first) == (True, False)
    assert set(groups(model)) == {"near", "far"}


def test_slices_of_packed_attention_are_in_the_named_order():
    """Zeroing the slice called `v` must silence the attention."""
    attention = nn.MultiheadAttention(16, 2, batch_first=True)
    start = roles_of(attention)[""].parts.index("v") * 16
    with torch.no_grad():
        attention.in_proj_weight[start : start + 16] = 0
        attention.in_proj_bias[start : start + 16] = 0
        attention.out_proj.bias.zero_()
        x = torch.randn(2, 3, 16)
        out, _ = attention(x, x, x)
    assert torch.equal(out, torch.zeros_like(out))


def test_counts_over_a_transformer():
    hits = roles_of(nn.Transformer(16, 2, 3, 2, 32))
    wanted = {p: select(["attention.q", "cross_attention.v"], h.role, h.parts) for p, h in hits.items()}
    chosen = {path: parts for path, parts in wanted.items() if parts}
    assert len(chosen) == 7
    assert chosen["decoder.layers.0.self_attn"] == ("q",)
    assert chosen["decoder.layers.0.multihead_attn"] == ("v",)


def test_torchvision_vit(check_complete, role_map, loose_map):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    model = models.VisionTransformer(16, 8, 2, 2, 64, 128, num_classes=3, representation_size=32)
    check_complete(model)
    assert role_map(model, "encoder.layers.encoder_layer_0.") == {
        "ln_1": "norm",
        "self_attention": "attention.qkv[q,k,v]",
        "self_attention.out_proj": "attention.out",
        "ln_2": "norm",
        "mlp.0": "mlp.up",
        "mlp.3": "mlp.down",
    }
    assert role_map(model, "heads.") == {"pre_logits": "projection", "head": "head"}
    assert loose_map(model) == {
        "class_token": "embedding.class",
        "encoder.pos_embedding": "embedding.position",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ("fc",)),
        ("regnet_y_400mf", ("fc",)),
        ("vit_b_32", ("heads.head",)),
        ("swin_t", ("head",)),
        ("convnext_tiny", ("classifier.2",)),
        ("efficientnet_b0", ("classifier.1",)),
        ("mobilenet_v2", ("classifier.1",)),
        ("mobilenet_v3_small", ("classifier.3",)),
        ("densenet121", ("classifier",)),
    ],
)
def test_torchvision_heads(name, expected):
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed")
    # RegNet reads values while it is built, so it cannot be built on the meta device
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        model = getattr(models, name)(num_classes=7)
    assert head_of(model) == expected
    head = model.get_submodule(expected[0])
    assert isinstance(head, nn.Linear)
    assert head.out_features == 7
