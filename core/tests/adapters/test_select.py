"""The grammar of patterns: what each form names, what wins, and what an error says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

import peftx
from peftx.adapters.select import select_sites
from peftx.adapters.survey import weight_sites
from peftx.errors import ConfigError, SelectionError, UserError

ABLE = ("linear", "linear_t", "conv1d", "conv2d", "embedding", "packed_attention")


@pytest.fixture
def chosen(case_of: Callable[[str], Any]) -> Callable[..., list[str]]:
    sites = {
        name: weight_sites(case_of(name).build()) for name in ("timm_vit", "transformers_gpt2", "encoder")
    }

    def run(
        *targets: str,
        exclude: tuple[str, ...] = (),
        model: str = "timm_vit",
        kinds: Any = ABLE,
        strict: bool = True,
    ) -> list[str]:
        found = select_sites(sites[model], targets, exclude, kinds, strict=strict, method="Method")
        return sorted(site.key for site in found)

    return run


QKV = ["blocks.0.attn.qkv", "blocks.1.attn.qkv"]
FC = [f"blocks.{i}.mlp.fc{n}" for i in (0, 1) for n in (1, 2)]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("role:mlp.up", ["blocks.0.mlp.fc1", "blocks.1.mlp.fc1"]),
        ("mlp.up", ["blocks.0.mlp.fc1", "blocks.1.mlp.fc1"]),
        ("mlp", FC),
        ("attention.q", [f"{key}[q]" for key in QKV]),
        ("role:attention.v", [f"{key}[v]" for key in QKV]),
        ("attention.qkv", QKV),
        ("attention.out", ["blocks.0.attn.proj", "blocks.1.attn.proj"]),
        ("attention", ["blocks.0.attn.proj", QKV[0], "blocks.1.attn.proj", QKV[1]]),
        ("qkv", QKV),
        ("attn.qkv", QKV),
        ("qkv[k]", [f"{key}[k]" for key in QKV]),
        ("blocks.1.attn.qkv", QKV[1:]),
        ("blocks.*.fc1", ["blocks.0.mlp.fc1", "blocks.1.mlp.fc1"]),
        ("glob:blocks.0.mlp.*", ["blocks.0.mlp.fc1", "blocks.0.mlp.fc2"]),
        ("blocks.?.mlp.fc2", ["blocks.0.mlp.fc2", "blocks.1.mlp.fc2"]),
        ("blocks.[!0].mlp.fc2", ["blocks.1.mlp.fc2"]),
        (r"re:blocks\.\d\.mlp\.fc1", ["blocks.0.mlp.fc1", "blocks.1.mlp.fc1"]),
        (
            r"re:.*(fc1|proj)",
            [*(f"blocks.{i}.{n}" for i in (0, 1) for n in ("attn.proj", "mlp.fc1")), "patch_embed.proj"],
        ),
        ("embedding.patch", ["patch_embed.proj"]),
        ("head", ["head"]),
        ("all-linear", sorted([*FC, *QKV, "blocks.0.attn.proj", "blocks.1.attn.proj"])),
    ],
)
def test_one_pattern(chosen: Callable[..., list[str]], pattern: str, wanted: list[str]) -> None:
    assert chosen(pattern) == sorted(wanted)


def test_a_regular_expression_matches_the_whole_key(chosen: Callable[..., list[str]]) -> None:
    with pytest.raises(SelectionError):
        chosen("re:fc1")
    with pytest.raises(SelectionError):
        chosen("re:blocks")


def test_the_end_of_a_name_begins_after_a_dot(chosen: Callable[..., list[str]]) -> None:
    with pytest.raises(SelectionError):
        chosen("kv")
    with pytest.raises(SelectionError):
        chosen("c1")


def test_patterns_add_up_and_none_counts_twice(chosen: Callable[..., list[str]]) -> None:
    assert chosen("mlp.up", "fc1", "glob:*.fc1", "mlp") == FC


def test_the_whole_wins_over_its_slices(chosen: Callable[..., list[str]]) -> None:
    assert chosen("attention.q", "qkv") == QKV
    assert chosen("qkv", "qkv[v]") == QKV
    assert chosen("attention.q", "blocks.0.attn.qkv") == ["blocks.0.attn.qkv", "blocks.1.attn.qkv[q]"]


def test_all_slices_stay_slices(chosen: Callable[..., list[str]]) -> None:
    wanted = sorted(f"{key}[{part}]" for key in QKV for part in "qkv")
    assert chosen("attention.q", "attention.k", "attention.v") == wanted


def test_exclude_wins(chosen: Callable[..., list[str]]) -> None:
    assert chosen("mlp", exclude=("fc2",)) == ["blocks.0.mlp.fc1", "blocks.1.mlp.fc1"]
    assert chosen("mlp", exclude=("blocks.0.*",)) == ["blocks.1.mlp.fc1", "blocks.1.mlp.fc2"]
    assert chosen("attention", "mlp", exclude=("role:attention",)) == FC
    assert chosen("qkv", exclude=("qkv",)) == []
    assert chosen("mlp", exclude=("nothing.here",)) == FC


def test_excluding_a_slice_of_a_whole_leaves_the_others(chosen: Callable[..., list[str]]) -> None:
    wanted = sorted(f"{key}[{part}]" for key in QKV for part in "qv")
    assert chosen("qkv", exclude=("attention.k",)) == wanted
    assert chosen("attention.qkv", exclude=("qkv[k]",)) == wanted
    assert chosen("qkv", exclude=("blocks.1.attn.qkv[k]",)) == [QKV[0], f"{QKV[1]}[q]", f"{QKV[1]}[v]"]


def test_slices_of_other_layouts(chosen: Callable[..., list[str]]) -> None:
    assert chosen("attention.q", model="transformers_gpt2") == ["transformer.h.0.attn.c_attn[q]"]
    keys = [f"trunk.encoder.layers.{i}.self_attn.in_proj[v]" for i in (0, 1)]
    assert chosen("attention.v", model="encoder") == keys


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("attention.qk", "attention.q"),
        ("mpl", "mlp"),
        ("atn.qkv", "attn.qkv"),
        ("fc11", "fc1"),
        ("role:attenion", "attention"),
        ("all-linaer", "all-linear"),
    ],
)
def test_a_near_miss_is_named(chosen: Callable[..., list[str]], pattern: str, near: str) -> None:
    with pytest.raises(SelectionError) as caught:
        chosen(pattern)
    assert "Did you mean" in str(caught.value) and near in str(caught.value)
    assert pattern.removeprefix("role:") in str(caught.value)


def test_nothing_like_it_lists_what_there_is(chosen: Callable[..., list[str]]) -> None:
    with pytest.raises(SelectionError, match=r"nothing in the model matches 'zzzz'.*Roles here: .*mlp\.up"):
        chosen("zzzz")
    with pytest.raises(SelectionError, match="cross_attention"):
        chosen("cross_attention")


def test_a_module_that_is_called_like_a_role_it_does_not_have() -> None:
    model = nn.ModuleDict({"mlp": nn.Linear(2, 2), "other": nn.Linear(2, 2)})
    sites = [site for site in weight_sites(model) if site.role != "mlp"]
    with pytest.raises(SelectionError, match=r"'mlp' is a role, .* write 're:mlp'"):
        select_sites(sites, ["mlp"], (), ABLE, strict=True, method="Method")
    assert [s.key for s in select_sites(sites, ["re:mlp"], (), ABLE, strict=True, method="Method")] == ["mlp"]


def test_a_kind_the_method_cannot_adapt(chosen: Callable[..., list[str]]) -> None:
    with pytest.raises(
        SelectionError, match=r"only sites of kind conv2d \(such as patch_embed.proj\), which Method"
    ):
        chosen("embedding.patch", kinds=("linear",))
    assert chosen("glob:*", kinds=("conv2d",)) == ["patch_embed.proj"]


def test_a_bad_regular_expression(chosen: Callable[..., list[str]]) -> None:
    with pytest.raises(ConfigError, match="not a regular expression"):
        chosen("re:(")


def test_strict_wants_every_pattern_otherwise_one_is_enough(chosen: Callable[..., list[str]]) -> None:
    with pytest.raises(SelectionError, match="cross_attention"):
        chosen("mlp", "cross_attention")
    assert chosen("mlp", "cross_attention", strict=False) == FC
    with pytest.raises(SelectionError):
        chosen("cross_attention", "attn.qvk", strict=False)


def test_the_users_own_patterns_are_strict_the_defaults_are_not(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    assert len(peftx.explain(model, "core.lora").rows) == 10  # has no cross-attention
    with pytest.raises(SelectionError, match="cross_attention"):
        peftx.explain(model, "core.lora", targets=["attention", "cross_attention"])
    with pytest.raises(SelectionError, match="classifier"):
        peftx.explain(model, "core.lora", also_train=["classifier"])


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("head", {"head.weight", "head.bias"}),
        ("blocks.1.mlp", {f"blocks.1.mlp.fc{n}.{p}" for n in (1, 2) for p in ("weight", "bias")}),
        ("fc1.bias", {"blocks.0.mlp.fc1.bias", "blocks.1.mlp.fc1.bias"}),
        ("cls_token", {"cls_token"}),
        ("embedding.class", {"cls_token"}),
        ("embedding.position", {"pos_embed"}),
        ("re:norm.*", {"norm.weight", "norm.bias"}),
        ("glob:patch_embed.*", {"patch_embed.proj.weight", "patch_embed.proj.bias"}),
    ],
)
def test_parameters_are_named_by_themselves_their_module_or_their_role(
    case_of: Callable[[str], Any], pattern: str, wanted: set[str]
) -> None:
    model = case_of("timm_vit").build()
    explained = peftx.explain(model, "core.head", also_train=[pattern])
    assert {row.key for row in explained.rows} == wanted


def test_no_pattern_at_all(case_of: Callable[[str], Any]) -> None:
    model = case_of("timm_vit").build()
    with pytest.raises(UserError):
        peftx.attach(model, "core.lora", targets=[], also_train=[])
    assert [row.key for row in peftx.explain(model, "core.lora", targets=[]).rows] == [
        "head.bias",
        "head.weight",
    ]


def test_default_targets_fall_back_where_there_is_no_attention_and_no_mlp() -> None:
    convolutions = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(4, 2)
    )
    assert "2" in peftx.attach(convolutions, "core.lora").attachment().plan.keys
    plain = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    assert peftx.attach(plain, "core.lora").attachment().plan.keys == ("0", "2")
    with pytest.raises(SelectionError, match=r"'attention'.*by the end of its name"):
        peftx.attach(nn.Sequential(nn.Linear(3, 3)), "core.lora", targets=["attention"])


def test_a_model_without_any_layer_says_how_to_name_a_site() -> None:
    with pytest.raises(SelectionError, match="by the end of its name"):
        peftx.attach(nn.LayerNorm(3), "core.lora")
