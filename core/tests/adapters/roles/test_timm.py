"""Role tables of timm's families, against the real models (on the meta device, or tiny)."""

from __future__ import annotations

import pytest
import torch

from peftx.adapters.activations import activation_sites
from peftx.adapters.roles import head_of, parameter_roles_of, roles_of, select

timm = pytest.importorskip("timm", reason="timm is not installed")


def create(name: str, **options):
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, **options)


SMALL_VIT = {"depth": 2, "embed_dim": 64, "num_heads": 2}
VIT_BLOCK = {
    "norm1": "norm",
    "attn.qkv": "attention.qkv[q,k,v]",
    "attn.proj": "attention.out",
    "norm2": "norm",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_base_patch16_224", SMALL_VIT),
        ("vit_base_patch16_siglip_224", SMALL_VIT),
        ("vit_giant_patch14_reg4_dinov2", {"depth": 1}),
        ("vit_base_r50_s16_224", {"depth": 1}),
        ("aimv2_large_patch14_224", {"depth": 1}),
        ("vit_small_patch16_18x2_224", {"depth": 1}),
        ("vit_relpos_small_patch16_224", {"depth": 1}),
        ("deit_base_patch16_224", SMALL_VIT),
        ("deit_base_distilled_patch16_224", SMALL_VIT),
        ("deit3_base_patch16_224", SMALL_VIT),
        ("beit_base_patch16_224", SMALL_VIT),
        ("beitv2_base_patch16_224", SMALL_VIT),
        ("eva_giant_patch14_224", {"depth": 1}),
        ("eva02_base_patch14_224", {"depth": 1}),
        ("eva02_large_patch14_clip_224", {"depth": 1}),
        ("vit_base_patch16_rope_mixed_224", {"depth": 1}),
        ("swin_tiny_patch4_window7_224", {"depths": (1, 1)}),
        ("swinv2_tiny_window8_256", {"depths": (1, 1)}),
        ("swinv2_cr_tiny_ns_224", {"depths": (1, 1)}),
        ("convnext_tiny", {"depths": (1, 1, 1, 1)}),
        ("convnext_tiny_hnf", {"depths": (1, 1, 1, 1)}),
        ("convnextv2_tiny", {"depths": (1, 1, 1, 1)}),
        ("resnet18", {}),
        ("resnet50d", {}),
        ("seresnet50", {}),
    ],
)
def test_every_layer_has_one_role(name, options, check_complete):
    hits = check_complete(create(name, num_classes=3, **options))
    assert sum(hit.role == "head" for hit in hits.values()) == (2 if "distilled" in name else 1)


def test_vit_block(role_map, groups, loose_map):
    model = create("vit_base_patch16_224", **SMALL_VIT)
    assert role_map(model, "blocks.0.") == VIT_BLOCK
    assert groups(model) == {
        "blocks.0.attn": ["blocks.0.attn.qkv", "blocks.0.attn.proj"],
        "blocks.0.mlp": ["blocks.0.mlp.fc1", "blocks.0.mlp.fc2"],
        "blocks.1.attn": ["blocks.1.attn.qkv", "blocks.1.attn.proj"],
        "blocks.1.mlp": ["blocks.1.mlp.fc1", "blocks.1.mlp.fc2"],
    }
    assert loose_map(model) == {"cls_token": "embedding.class", "pos_embed": "embedding.position"}
    assert role_map(model, "patch_embed") == {".proj": "embedding.patch"}
    assert role_map(model, "head") == {"": "head"}


def test_deit_block_is_a_vit_block(role_map, loose_map):
    model = create("deit_base_distilled_patch16_224", **SMALL_VIT)
    assert role_map(model, "blocks.0.") == VIT_BLOCK
    assert role_map(model, "head") == {"": "head", "_dist": "head"}
    assert loose_map(model)["dist_token"] == "embedding.class"


def test_siglip_pooling_is_no_attention_of_the_trunk(role_map):
    model = create("vit_base_patch16_siglip_224", **SMALL_VIT)
    assert role_map(model, "attn_pool.") == {
        "q": "pooler",
        "kv": "pooler",
        "proj": "pooler",
        "norm": "norm",
        "mlp.fc1": "pooler",
        "mlp.fc2": "pooler",
    }


def test_packed_swiglu_is_one_unsliced_weight(role_map):
    # GluMlp keeps its gate in the first or the second half, depending on an option no path shows
    model = create("vit_giant_patch14_reg4_dinov2", depth=1)
    assert role_map(model, "blocks.0.mlp.") == {"fc1": "mlp.up", "fc2": "mlp.down"}


def test_parallel_blocks(role_map, groups):
    model = create("vit_small_patch16_18x2_224", depth=1)
    assert groups(model)["blocks.0.attns.1.attn"] == [
        "blocks.0.attns.1.attn.qkv",
        "blocks.0.attns.1.attn.proj",
    ]
    assert groups(model)["blocks.0.ffns.1.mlp"] == ["blocks.0.ffns.1.mlp.fc1", "blocks.0.ffns.1.mlp.fc2"]
    from timm.models.vision_transformer import ParallelScalingBlock

    # one weight for mlp and q, k, v with slices of unequal height: never cut
    assert role_map(ParallelScalingBlock(16, 2), "") == {
        "in_norm": "norm",
        "in_proj": "attention.qkv",
        "attn_out_proj": "attention.out",
        "mlp_out_proj": "mlp.down",
    }


def test_beit_block(role_map, loose_map):
    model = create("beit_base_patch16_224", **SMALL_VIT)
    assert role_map(model, "blocks.0.") == VIT_BLOCK
    assert roles_of(model)["blocks.0.attn.qkv"].raw, "BEiT reads qkv.weight and never calls qkv"
    loose = loose_map(model)
    assert loose["blocks.0.attn.q_bias"] == "attention.q"
    assert loose["blocks.0.attn.v_bias"] == "attention.v"
    assert loose["blocks.0.attn.relative_position_bias_table"] == "embedding.position"
    assert loose["blocks.0.gamma_1"] == "scale"
    assert parameter_roles_of(model)["blocks.0.attn.q_bias"].group == "blocks.0.attn"
    assert roles_of(model)["fc_norm"].role == "norm"


def test_raw_places_are_those_whose_module_is_never_called():
    """The claim of `raw`, checked by calling the models: which qkv modules does a forward visit?"""
    for name, options, size in [
        ("vit_base_patch16_224", {**SMALL_VIT, "img_size": 32}, 32),
        ("beit_base_patch16_224", {**SMALL_VIT, "img_size": 32}, 32),
        (
            "swin_tiny_patch4_window7_224",
            {"depths": (1,), "embed_dim": 24, "img_size": 32, "window_size": 4},
            32,
        ),
        ("swinv2_tiny_window8_256", {"depths": (1,), "embed_dim": 24, "img_size": 32, "window_size": 4}, 32),
    ]:
        model = timm.create_model(name, pretrained=False, num_classes=2, **options).eval()
        visited: set[str] = set()
        for path, module in model.named_modules():
            module.register_forward_pre_hook(lambda m, args, path=path, seen=visited: seen.add(path))
        with torch.no_grad():
            model(torch.zeros(1, 3, size, size))
        hits = {path: hit for path, hit in roles_of(model).items() if hit.role == "attention.qkv"}
        assert hits
        assert {path for path in hits if path not in visited} == {
            path for path, hit in hits.items() if hit.raw
        }, name


def test_eva_blocks(role_map):
    fused = create("eva_giant_patch14_224", depth=1)
    assert role_map(fused, "blocks.0.") == VIT_BLOCK
    assert role_map(create("eva02_base_patch14_224", depth=1), "blocks.0.") == {
        "norm1": "norm",
        "attn.q_proj": "attention.q",
        "attn.k_proj": "attention.k",
        "attn.v_proj": "attention.v",
        "attn.proj": "attention.out",
        "norm2": "norm",
        "mlp.fc1_g": "mlp.gate",
        "mlp.fc1_x": "mlp.up",
        "mlp.norm": "norm",
        "mlp.fc2": "mlp.down",
    }


def test_swin(role_map, groups):
    model = create("swin_tiny_patch4_window7_224", depths=(1, 1))
    assert role_map(model, "layers.0.blocks.0.") == VIT_BLOCK
    assert role_map(model, "layers.1.downsample.") == {"norm": "norm", "reduction": "downsample"}
    assert role_map(model, "head.") == {"fc": "head"}
    assert "layers.1.blocks.0.mlp" in groups(model)


def test_a_vit_with_relative_positions(role_map):
    """Its position nets are inside of attentions; as feed-forward networks they would be adapted unasked."""
    model = create("vit_relpos_small_patch16_224", depth=1)
    assert role_map(model, "blocks.0.") == {
        "attn.rel_pos.mlp.fc1": "embedding.position",
        "attn.rel_pos.mlp.fc2": "embedding.position",
        **{path: VIT_BLOCK[path] for path in VIT_BLOCK},
    }
    assert [site.key for site in activation_sites(model)] == ["blocks.0", "blocks.0.attn", "blocks.0.mlp"]


def test_swin_v2_position_net_is_not_a_feedforward_block(role_map):
    model = create("swinv2_tiny_window8_256", depths=(1, 1))
    assert role_map(model, "layers.0.blocks.0.") == {
        "attn.cpb_mlp.0": "embedding.position",
        "attn.cpb_mlp.2": "embedding.position",
        **{path: VIT_BLOCK[path] for path in VIT_BLOCK},
    }


def test_convnext(role_map, loose_map):
    model = create("convnext_tiny", depths=(1, 1, 1, 1))
    assert role_map(model, "stages.0.blocks.0.") == {
        "conv_dw": "conv",
        "norm": "norm",
        "mlp.fc1": "mlp.up",
        "mlp.fc2": "mlp.down",
    }
    assert role_map(model, "stem.") == {"0": "embedding.patch", "1": "norm"}
    assert role_map(model, "stages.1.downsample.") == {"0": "norm", "1": "downsample"}
    assert role_map(model, "head.") == {"norm": "norm", "fc": "head"}
    assert loose_map(model)["stages.0.blocks.0.gamma"] == "scale"
    assert role_map(create("convnextv2_tiny", depths=(1, 1, 1, 1)), "stages.0.blocks.0.mlp.")["grn"] == "norm"


def test_resnet(role_map):
    assert role_map(create("resnet50"), "layer1.0.") == {
        "conv1": "conv",
        "bn1": "norm",
        "conv2": "conv",
        "bn2": "norm",
        "conv3": "conv",
        "bn3": "norm",
        "downsample.0": "downsample",
        "downsample.1": "norm",
    }
    assert role_map(create("resnet18"), "conv1") == {"": "embedding.patch"}


HEADS = [
    # from the declared classifier of each model; never by the substring "head"
    ("vit_base_patch16_224", {"depth": 1}, ("head",)),
    ("vit_relpos_small_patch16_224", {"depth": 1}, ("head",)),
    ("mixer_b16_224", {}, ("head",)),
    ("deit_base_patch16_224", {"depth": 1}, ("head",)),
    ("deit_base_distilled_patch16_224", {"depth": 1}, ("head", "head_dist")),
    ("beit_base_patch16_224", {"depth": 1}, ("head",)),
    ("eva02_base_patch14_224", {"depth": 1}, ("head",)),
    ("convnext_tiny", {"depths": (1, 1, 1, 1)}, ("head.fc",)),
    ("swin_tiny_patch4_window7_224", {"depths": (1, 1)}, ("head.fc",)),
    ("swinv2_tiny_window8_256", {"depths": (1, 1)}, ("head.fc",)),
    ("regnety_002", {}, ("head.fc",)),
    ("resnet18", {}, ("fc",)),
    ("efficientnet_b0", {}, ("classifier",)),
    ("mobilenetv3_small_100", {}, ("classifier",)),
    ("densenet121", {}, ("classifier",)),
    ("vgg11", {}, ("head.fc",)),
    ("levit_128s", {}, ("head.linear", "head_dist.linear")),
]


@pytest.mark.parametrize(("name", "options", "expected"), HEADS)
def test_head(name, options, expected):
    assert head_of(create(name, num_classes=3, **options)) == expected
    # a model made without classes has no head at all, and nothing else is mistaken for one
    assert head_of(create(name, num_classes=0, **options)) == ()


def test_head_without_the_registry():
    """A model built from its class carries no `pretrained_cfg`: the table says where the head is."""
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    with torch.device("meta"):
        plain = VisionTransformer(img_size=32, embed_dim=16, depth=1, num_heads=2, num_classes=3)
        distilled = VisionTransformerDistilled(img_size=32, embed_dim=16, depth=1, num_heads=2, num_classes=3)
    assert head_of(plain) == ("head",)
    assert head_of(distilled) == ("head", "head_dist")


def test_counts_of_a_full_size_vit():
    hits = roles_of(create("vit_base_patch16_224"))
    slices = [
        part for hit in hits.values() for part in select(["attention.q", "attention.v"], hit.role, hit.parts)
    ]
    assert slices == ["q", "v"] * 12
    whole = [path for path, hit in hits.items() if select(["attention", "mlp"], hit.role, hit.parts)]
    assert len(whole) == 48
    assert sum(hit.role == "norm" for hit in hits.values()) == 25


def test_a_block_alone_is_known(role_map):
    from timm.models.vision_transformer import Block

    class Mine(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = torch.nn.ModuleList([Block(16, 2)])

    assert role_map(Mine(), "trunk.0.") == VIT_BLOCK
    assert {hit.family for hit in roles_of(Mine()).values()} == {"timm-vit"}
