"""The fallback by name, on models no table knows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peftx.adapters.roles import roles_of


def build(*paths: str) -> nn.Module:
    """A model of plain modules with a linear layer at every path."""
    root = nn.Module()
    for path in paths:
        module, *names = root, *path.split(".")
        for name in names[:-1]:
            if name not in module._modules:
                module.add_module(name, nn.Module())
            module = module._modules[name]
        module.add_module(names[-1], nn.Linear(4, 4))
    return root


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # timm-like
        (
            ("blk.attn.qkv", "blk.attn.proj", "blk.mlp.fc1", "blk.mlp.fc2"),
            ("attention.qkv[q,k,v]", "attention.out", "mlp.up", "mlp.down"),
        ),
        (
            ("blk.attn.q", "blk.attn.kv", "blk.attn.proj"),
            ("attention.q", "attention.kv[k,v]", "attention.out"),
        ),
        # lucidrains-like
        (
            ("a.0.to_qkv", "a.0.to_out.0", "a.0.net.1", "a.0.net.4"),
            ("attention.qkv[q,k,v]", "attention.out", "mlp.up", "mlp.down"),
        ),
        # wav2vec2 and BART
        (
            ("l.attention.k_proj", "l.attention.q_proj", "l.attention.v_proj", "l.attention.out_proj"),
            ("attention.k", "attention.q", "attention.v", "attention.out"),
        ),
        (
            ("l.encoder_attn.k_proj", "l.encoder_attn.q_proj", "l.encoder_attn.out_proj", "l.fc1", "l.fc2"),
            ("cross_attention.k", "cross_attention.q", "cross_attention.out", "mlp.up", "mlp.down"),
        ),
        (("l.feed_forward.intermediate_dense", "l.feed_forward.output_dense"), ("mlp.up", "mlp.down")),
        # T5
        (
            ("b.SelfAttention.q", "b.SelfAttention.k", "b.SelfAttention.v", "b.SelfAttention.o"),
            ("attention.q", "attention.k", "attention.v", "attention.out"),
        ),
        (("b.EncDecAttention.q", "b.EncDecAttention.v"), ("cross_attention.q", "cross_attention.v")),
        (("b.D.wi_0", "b.D.wi_1", "b.D.wo"), ("mlp.gate", "mlp.up", "mlp.down")),
        # Llama as released by its authors
        (
            ("l.attention.wq", "l.attention.wk", "l.attention.wo", "l.f.w1", "l.f.w2", "l.f.w3"),
            ("attention.q", "attention.k", "attention.out", "mlp.gate", "mlp.down", "mlp.up"),
        ),
        # layouts that differ between models under one name stay whole
        (("h.attn.c_attn", "h.attn.c_proj"), ("attention.qkv", "attention.out")),
        (("h.attention.query_key_value", "h.attention.dense"), ("attention.qkv", "attention.out")),
        (("h.self_attn.qkv_proj", "h.self_attn.o_proj"), ("attention.qkv", "attention.out")),
        # no guess where a name says nothing
        (("value", "policy"), ("other", "other")),
        (("proj", "head", "fc", "classifier"), ("other", "other", "other", "other")),
        (("0", "2"), ("other", "other")),
        (("lm_head",), ("lm_head",)),
        (("pooler.dense",), ("pooler",)),
        (("text_projection", "projector"), ("projection", "projection")),
    ],
)
def test_linear(layers, expected):
    hits = roles_of(build(*layers))
    found = [hits[path] for path in layers]
    assert tuple(f"{h.role}[{','.join(h.parts)}]" if h.parts else h.role for h in found) == expected
    assert {hit.family for hit in found} == {"generic"}


def test_other_kinds():
    model = nn.ModuleDict(
        {
            "patch_embed": nn.ModuleDict({"proj": nn.Conv2d(3, 8, 4)}),
            "features": nn.Conv1d(3, 8, 3),
            "downsample": nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)),
            "tokens": nn.Embedding(4, 8),
            "pos_emb": nn.Embedding(4, 8),
            "token_type": nn.Embedding(2, 8),
            "out": nn.RMSNorm(8),
            "bare": nn.LayerNorm(8, elementwise_affine=False),
        }
    )
    assert {path: hit.role for path, hit in roles_of(model).items()} == {
        "patch_embed.proj": "embedding.patch",
        "features": "conv",
        "downsample.0": "downsample",
        "downsample.1": "norm",
        "tokens": "embedding.token",
        "pos_emb": "embedding.position",
        "token_type": "embedding.type",
        "out": "norm",
    }


def test_a_norm_is_known_by_the_name_of_its_class_and_owns_little():
    class T5LayerNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

    class BlockPostNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma_1 = nn.Parameter(torch.ones(4))
            self.fc1 = nn.Linear(4, 4)

    hits = roles_of(nn.ModuleDict({"a": T5LayerNorm(), "b": BlockPostNorm()}))
    assert {path: hit.role for path, hit in hits.items()} == {"a": "norm", "b.fc1": "mlp.up"}


def test_groups(groups):
    model = build(
        "l.self_attn.q_proj",
        "l.self_attn.k_proj",
        "l.self_attn.out_proj",
        "l.fc1",
        "l.fc2",
        "m.attention.self.query",
        "m.attention.self.key",
        "m.attention.output.dense",
        "m.intermediate.dense",
        "m.output.dense",
        "n.mlp.up_proj",
        "n.mlp.down_proj",
    )
    assert {group: len(members) for group, members in groups(model).items()} == {
        "l.self_attn": 3,
        "l.mlp": 2,
        "m.attention": 3,
        "m.mlp": 2,
        "n.mlp": 2,
    }


TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.parametrize(
    ("name", "config", "options", "some"),
    [
        (
            "T5ForConditionalGeneration",
            "T5Config",
            {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 40},
            {
                "decoder.block.0.layer.1.EncDecAttention.v": "cross_attention.v",
                "decoder.block.0.layer.2.DenseReluDense.wo": "mlp.down",
                "lm_head": "lm_head",
            },
        ),
        (
            "BartForSequenceClassification",
            "BartConfig",
            {
                "d_model": 16,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "decoder_ffn_dim": 32,
                "vocab_size": 40,
            },
            {
                "model.decoder.layers.0.encoder_attn.out_proj": "cross_attention.out",
                "model.encoder.layers.0.fc2": "mlp.down",
            },
        ),
        (
            "ElectraModel",
            "ElectraConfig",
            {**TINY, "embedding_size": 16, "vocab_size": 40},
            {
                "encoder.layer.0.attention.output.dense": "attention.out",
                "encoder.layer.0.output.dense": "mlp.down",
            },
        ),
    ],
)
def test_families_of_the_real_library_without_a_table(name, config, options, some, check_complete):
    """Common shapes are found by name alone, with nothing left over."""
    tf = pytest.importorskip("transformers", reason="transformers is not installed")
    with torch.device("meta"):
        model = getattr(tf, name)(getattr(tf, config)(**options))
    hits = check_complete(model, generic=True)
    assert {path: hits[path].role for path in some} == some
    assert {hit.family for hit in hits.values()} == {"generic"}
