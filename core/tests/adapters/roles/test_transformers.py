"""Role tables of transformers' families, against the real models built from tiny configurations."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from peftx.adapters.roles import RoleHit, head_of, lm_head_of, roles_of, select

tf = pytest.importorskip("transformers", reason="transformers is not installed")

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": 40}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
BERT = {**TINY, "vocab_size": 40}
WHISPER = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}
CLIP = {"text_config": TINY, "vision_config": TINY}
LLAMA = {**BERT, "num_key_value_heads": 1}
# the masked pixel decoder needs image_size / patch_size to be whole
VIT = {**TINY, "image_size": 32, "patch_size": 16}

# class, configuration, its options, classification head, language-model head
MODELS = [
    ("ViTModel", "ViTConfig", VIT, (), ()),
    ("ViTForImageClassification", "ViTConfig", VIT, ("classifier",), ()),
    ("ViTForMaskedImageModeling", "ViTConfig", VIT, (), ()),
    ("DeiTForImageClassification", "DeiTConfig", VIT, ("classifier",), ()),
    (
        "DeiTForImageClassificationWithTeacher",
        "DeiTConfig",
        VIT,
        ("cls_classifier", "distillation_classifier"),
        (),
    ),
    (
        "BeitForImageClassification",
        "BeitConfig",
        {**VIT, "use_relative_position_bias": True},
        ("classifier",),
        (),
    ),
    ("BeitForMaskedImageModeling", "BeitConfig", VIT, (), ("lm_head",)),
    ("CLIPModel", "CLIPConfig", CLIP, (), ()),
    ("CLIPVisionModelWithProjection", "CLIPVisionConfig", TINY, (), ()),
    ("CLIPForImageClassification", "CLIPConfig", CLIP, ("classifier",), ()),
    ("GPT2LMHeadModel", "GPT2Config", {**GPT2, "add_cross_attention": True}, (), ("lm_head",)),
    ("GPT2ForSequenceClassification", "GPT2Config", GPT2, ("score",), ()),
    ("GPT2ForTokenClassification", "GPT2Config", GPT2, ("classifier",), ()),
    (
        "GPT2DoubleHeadsModel",
        "GPT2Config",
        {**GPT2, "num_labels": 1},
        ("multiple_choice_head",),
        ("lm_head",),
    ),
    ("BertForSequenceClassification", "BertConfig", BERT, ("classifier",), ()),
    ("BertForQuestionAnswering", "BertConfig", BERT, ("qa_outputs",), ()),
    ("BertForNextSentencePrediction", "BertConfig", BERT, ("cls",), ()),
    (
        "BertForMaskedLM",
        "BertConfig",
        BERT,
        (),
        ("cls.predictions.transform.dense", "cls.predictions.decoder"),
    ),
    (
        "BertForPreTraining",
        "BertConfig",
        BERT,
        ("cls.seq_relationship",),
        ("cls.predictions.transform.dense", "cls.predictions.decoder"),
    ),
    (
        "BertLMHeadModel",
        "BertConfig",
        {**BERT, "is_decoder": True, "add_cross_attention": True},
        (),
        ("cls.predictions.transform.dense", "cls.predictions.decoder"),
    ),
    ("RobertaForSequenceClassification", "RobertaConfig", BERT, ("classifier",), ()),
    ("RobertaForMaskedLM", "RobertaConfig", BERT, (), ("lm_head.dense", "lm_head.decoder")),
    ("XLMRobertaForTokenClassification", "XLMRobertaConfig", BERT, ("classifier",), ()),
    ("CamembertForSequenceClassification", "CamembertConfig", BERT, ("classifier",), ()),
    (
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        DISTIL,
        ("pre_classifier", "classifier"),
        (),
    ),
    ("DistilBertForMaskedLM", "DistilBertConfig", DISTIL, (), ("vocab_transform", "vocab_projector")),
    ("WhisperForConditionalGeneration", "WhisperConfig", WHISPER, (), ("proj_out",)),
    (
        "WhisperForAudioClassification",
        "WhisperConfig",
        {**WHISPER, "use_weighted_layer_sum": True},
        ("projector", "classifier"),
        (),
    ),
    ("LlamaForCausalLM", "LlamaConfig", LLAMA, (), ("lm_head",)),
    ("LlamaForSequenceClassification", "LlamaConfig", LLAMA, ("score",), ()),
    ("MistralForCausalLM", "MistralConfig", LLAMA, (), ("lm_head",)),
    ("Qwen2ForCausalLM", "Qwen2Config", LLAMA, (), ("lm_head",)),
    ("Qwen3ForCausalLM", "Qwen3Config", LLAMA, (), ("lm_head",)),
    ("GemmaForCausalLM", "GemmaConfig", LLAMA, (), ("lm_head",)),
    ("Gemma2ForCausalLM", "Gemma2Config", LLAMA, (), ("lm_head",)),
    ("Phi3ForCausalLM", "Phi3Config", {**LLAMA, "pad_token_id": 0}, (), ("lm_head",)),
    ("OlmoForCausalLM", "OlmoConfig", LLAMA, (), ("lm_head",)),
    ("Olmo2ForCausalLM", "Olmo2Config", LLAMA, (), ("lm_head",)),
    ("GraniteForCausalLM", "GraniteConfig", LLAMA, (), ("lm_head",)),
    ("SmolLM3ForCausalLM", "SmolLM3Config", {**LLAMA, "pad_token_id": 0}, (), ("lm_head",)),
]


def create(name: str, config: str, options: dict) -> nn.Module:
    if not hasattr(tf, name):
        pytest.skip(f"this transformers has no {name}")
    with torch.device("meta"):
        return getattr(tf, name)(getattr(tf, config)(**options))


@pytest.mark.parametrize(
    ("name", "config", "options", "head", "lm_head"), MODELS, ids=lambda value: str(value)[:40]
)
def test_every_layer_has_one_role(name, config, options, head, lm_head, check_complete):
    model = create(name, config, options)
    hits = check_complete(model)
    assert head_of(model) == head
    assert lm_head_of(model) == lm_head
    inside = {path for path, hit in hits.items() if hit.role == "head"}
    assert inside == {p for p in hits if any(p == h or p.startswith(h + ".") for h in head)}


VIT_LAYER = {
    "attention.q_proj": "attention.q",
    "attention.k_proj": "attention.k",
    "attention.v_proj": "attention.v",
    "attention.o_proj": "attention.out",
    "layernorm_before": "norm",
    "layernorm_after": "norm",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}


@pytest.mark.parametrize(
    ("name", "config", "trunk"),
    [
        ("ViTForImageClassification", "ViTConfig", "vit"),
        ("DeiTForImageClassification", "DeiTConfig", "deit"),
        ("BeitForImageClassification", "BeitConfig", "beit"),
    ],
)
def test_vit_layer(name, config, trunk, role_map, groups):
    model = create(name, config, VIT)
    if role_map(model, f"{trunk}.encoder.layer.0."):
        pytest.skip("transformers 4 spelling: covered by the stand-in below")
    assert role_map(model, f"{trunk}.layers.0.") == VIT_LAYER
    assert groups(model)[f"{trunk}.layers.0.mlp"] == [
        f"{trunk}.layers.0.mlp.fc1",
        f"{trunk}.layers.0.mlp.fc2",
    ]
    assert len(groups(model)[f"{trunk}.layers.1.attention"]) == 4
    assert role_map(model, f"{trunk}.embeddings.") == {"patch_embeddings.projection": "embedding.patch"}


def test_vit_layer_of_transformers_4(role_map, groups):
    """The spelling before version 5, on stand-in modules that carry the library's class names."""

    def module(name: str, **children: nn.Module) -> nn.Module:
        cls = type(name, (nn.Module,), {"__module__": "transformers.models.vit.modeling_vit"})
        made = cls()
        for key, child in children.items():
            made.add_module(key, child)
        return made

    def linear() -> nn.Module:
        return nn.Linear(4, 4)

    inner = module("ViTSelfAttention", query=linear(), key=linear(), value=linear())
    outer = module("ViTAttention", attention=inner, output=module("ViTSelfOutput", dense=linear()))
    layer = module(
        "ViTLayer",
        attention=outer,
        intermediate=module("ViTIntermediate", dense=linear()),
        output=module("ViTOutput", dense=linear()),
        layernorm_before=nn.LayerNorm(4),
    )
    encoder = module("ViTEncoder", layer=nn.ModuleList([layer]))
    model = module("ViTForImageClassification", vit=module("ViTModel", encoder=encoder), classifier=linear())
    assert role_map(model, "vit.encoder.layer.0.") == {
        "attention.attention.query": "attention.q",
        "attention.attention.key": "attention.k",
        "attention.attention.value": "attention.v",
        "attention.output.dense": "attention.out",
        "intermediate.dense": "mlp.up",
        "output.dense": "mlp.down",
        "layernorm_before": "norm",
    }
    assert {group: len(members) for group, members in groups(model).items()} == {
        "vit.encoder.layer.0.attention": 4,
        "vit.encoder.layer.0.mlp": 2,
    }
    assert head_of(model) == ("classifier",)


def test_clip(role_map, loose_map):
    model = create("CLIPModel", "CLIPConfig", CLIP)
    layer = {
        "self_attn.k_proj": "attention.k",
        "self_attn.v_proj": "attention.v",
        "self_attn.q_proj": "attention.q",
        "self_attn.out_proj": "attention.out",
        "layer_norm1": "norm",
        "mlp.fc1": "mlp.up",
        "mlp.fc2": "mlp.down",
        "layer_norm2": "norm",
    }
    assert role_map(model, "text_model.encoder.layers.0.") == layer
    assert role_map(model, "vision_model.encoder.layers.0.") == layer
    assert role_map(model, "text_model.embeddings.") == {
        "token_embedding": "embedding.token",
        "position_embedding": "embedding.position",
    }
    assert role_map(model, "vision_model.embeddings.") == {
        "patch_embedding": "embedding.patch",
        "position_embedding": "embedding.position",
    }
    assert role_map(model, "visual_projection") == {"": "projection"}
    assert loose_map(model) == {
        "logit_scale": "scale",
        "vision_model.embeddings.class_embedding": "embedding.class",
    }


def test_gpt2_block(role_map, groups):
    model = create("GPT2LMHeadModel", "GPT2Config", {**GPT2, "add_cross_attention": True})
    assert role_map(model, "transformer.h.0.") == {
        "ln_1": "norm",
        "attn.c_attn": "attention.qkv[q,k,v]",
        "attn.c_proj": "attention.out",
        "ln_2": "norm",
        "crossattention.c_attn": "cross_attention.kv[k,v]",
        "crossattention.q_attn": "cross_attention.q",
        "crossattention.c_proj": "cross_attention.out",
        "ln_cross_attn": "norm",
        "mlp.c_fc": "mlp.up",
        "mlp.c_proj": "mlp.down",
    }
    assert role_map(model, "transformer.w") == {"te": "embedding.token", "pe": "embedding.position"}
    assert groups(model)["transformer.h.0.crossattention"] == [
        "transformer.h.0.crossattention.c_attn",
        "transformer.h.0.crossattention.q_attn",
        "transformer.h.0.crossattention.c_proj",
    ]


def test_gpt2_slices_lie_along_the_output_axis():
    """The order q, k, v, shown on the model: zeroing one slice of c_attn must make that quantity vanish."""
    model = tf.GPT2Model(tf.GPT2Config(**{**GPT2, "n_layer": 1}))
    hit = roles_of(model)["h.0.attn.c_attn"]
    c_attn = model.h[0].attn.c_attn
    assert c_attn.weight.shape == (16, 48)  # (in, out): slices are columns
    start = hit.parts.index("v") * 16
    with torch.no_grad():
        c_attn.weight[:, start : start + 16] = 0
        c_attn.bias[start : start + 16] = 0
        model.h[0].attn.c_proj.bias.zero_()
        out = model.h[0].attn(torch.randn(1, 3, 16))[0]
    assert torch.equal(out, torch.zeros_like(out)), "without values attention returns nothing"


def test_bert_layer(role_map, groups):
    model = create("BertLMHeadModel", "BertConfig", {**BERT, "is_decoder": True, "add_cross_attention": True})
    assert role_map(model, "bert.encoder.layer.0.") == {
        "attention.self.query": "attention.q",
        "attention.self.key": "attention.k",
        "attention.self.value": "attention.v",
        "attention.output.dense": "attention.out",
        "attention.output.LayerNorm": "norm",
        "crossattention.self.query": "cross_attention.q",
        "crossattention.self.key": "cross_attention.k",
        "crossattention.self.value": "cross_attention.v",
        "crossattention.output.dense": "cross_attention.out",
        "crossattention.output.LayerNorm": "norm",
        "intermediate.dense": "mlp.up",
        "output.dense": "mlp.down",
        "output.LayerNorm": "norm",
    }
    assert groups(model)["bert.encoder.layer.0.mlp"] == [
        "bert.encoder.layer.0.intermediate.dense",
        "bert.encoder.layer.0.output.dense",
    ]
    classifier = create("BertForSequenceClassification", "BertConfig", BERT)
    assert role_map(classifier, "bert.pooler.") == {"dense": "pooler"}
    assert role_map(classifier, "bert.embeddings.")["token_type_embeddings"] == "embedding.type"


def test_distilbert_layer(role_map):
    model = create("DistilBertForSequenceClassification", "DistilBertConfig", DISTIL)
    assert role_map(model, "distilbert.transformer.layer.0.") == {
        "attention.q_lin": "attention.q",
        "attention.k_lin": "attention.k",
        "attention.v_lin": "attention.v",
        "attention.out_lin": "attention.out",
        "sa_layer_norm": "norm",
        "ffn.lin1": "mlp.up",
        "ffn.lin2": "mlp.down",
        "output_layer_norm": "norm",
    }


def test_whisper_decoder_layer(role_map, groups):
    model = create("WhisperForConditionalGeneration", "WhisperConfig", WHISPER)
    assert role_map(model, "model.decoder.layers.0.") == {
        "self_attn.k_proj": "attention.k",
        "self_attn.v_proj": "attention.v",
        "self_attn.q_proj": "attention.q",
        "self_attn.out_proj": "attention.out",
        "self_attn_layer_norm": "norm",
        "encoder_attn.k_proj": "cross_attention.k",
        "encoder_attn.v_proj": "cross_attention.v",
        "encoder_attn.q_proj": "cross_attention.q",
        "encoder_attn.out_proj": "cross_attention.out",
        "encoder_attn_layer_norm": "norm",
        "fc1": "mlp.up",
        "fc2": "mlp.down",
        "final_layer_norm": "norm",
    }
    assert role_map(model, "model.encoder.conv") == {"1": "embedding.patch", "2": "embedding.patch"}
    assert role_map(model, "model.decoder.embed_") == {
        "tokens": "embedding.token",
        "positions": "embedding.position",
    }
    assert groups(model)["model.decoder.layers.0.mlp"] == [
        "model.decoder.layers.0.fc1",
        "model.decoder.layers.0.fc2",
    ]


def test_llama_layer(role_map):
    assert role_map(create("LlamaForCausalLM", "LlamaConfig", LLAMA), "model.layers.0.") == {
        "self_attn.q_proj": "attention.q",
        "self_attn.k_proj": "attention.k",
        "self_attn.v_proj": "attention.v",
        "self_attn.o_proj": "attention.out",
        "mlp.gate_proj": "mlp.gate",
        "mlp.up_proj": "mlp.up",
        "mlp.down_proj": "mlp.down",
        "input_layernorm": "norm",
        "post_attention_layernorm": "norm",
    }


def test_phi3_is_sliced_only_where_the_slices_are_equal(role_map):
    model = create("Phi3ForCausalLM", "Phi3Config", {**LLAMA, "pad_token_id": 0})
    roles = role_map(model, "model.layers.0.")
    assert roles["self_attn.qkv_proj"] == "attention.qkv"  # 2 heads of q, 1 of k, 1 of v
    assert roles["mlp.gate_up_proj"] == "mlp.up[gate,up]"
    hit: RoleHit = roles_of(model)["model.layers.0.mlp.gate_up_proj"]
    assert select(["mlp.gate"], hit.role, hit.parts) == ("gate",)


def test_two_families_in_one_model():
    """An encoder-decoder of two libraries' shapes: each half is read by its own table."""
    encoder, decoder = tf.ViTConfig(**VIT), tf.GPT2Config(**{**GPT2, "add_cross_attention": True})
    with torch.device("meta"):
        model = tf.VisionEncoderDecoderModel(
            tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
        )
    families = {path.split(".")[0]: hit.family for path, hit in roles_of(model).items()}
    assert families == {"encoder": "transformers-vit", "decoder": "transformers-gpt2"}
    assert head_of(model) == ()
    assert lm_head_of(model) == ("decoder.lm_head",)
