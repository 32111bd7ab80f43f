"""Which sites a model has, of which kind and shape, whatever library it comes from."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

import peftx
from peftx.adapters import KINDS, AdapterMethod, Delta, Site
from peftx.adapters.survey import base_modules, in_model_order, norm_sites, parameter_sites, weight_sites


def test_every_parameter_is_one_site(case: Any) -> None:
    model = case.build()
    sites = parameter_sites(model)
    named = dict(model.named_parameters(remove_duplicate=False))
    assert {site.key for site in sites} == set(named) and len(sites) == len(named)
    for site in sites:
        assert site.shape == tuple(named[site.key].shape) and site.dtype == torch.float32
        assert site.kind in KINDS
        assert site.key == f"{site.module}.{site.weight}".lstrip(".")


def test_slices_of_a_bias_are_those_of_its_weight(case: Any) -> None:
    model = case.build()
    plain, sliced = parameter_sites(model), parameter_sites(model, bias_slices=True)
    assert [site for site in sliced if not site.part] == plain
    weights = {(s.module, s.part): s for s in weight_sites(model) if s.part and s.bias is not None}
    biases = {(s.module, s.part): s for s in sliced if s.part}
    # where key and value widths differ, only the bias is fused
    assert set(weights) <= set(biases) and (
        set(biases) == set(weights) or case.name == "packed_attention_widths"
    )
    for place, site in biases.items():
        start, stop = site.rows or (0, 0)
        assert site.shape == (stop - start,) and site.weight in ("bias", "in_proj_bias")
        if place in weights:
            assert (site.rows, site.role) == (weights[place].rows, weights[place].role)


def test_every_weight_site_covers_what_it_says(case: Any) -> None:
    model = case.build()
    for site in weight_sites(model):
        weight = model.get_submodule(site.module)._parameters[site.weight]
        stored = weight.t() if site.kind in ("linear_t", "embedding") else weight
        if site.rows is not None:
            stored = stored[slice(*site.rows)]
        assert site.shape == tuple(stored.shape), site.key
        assert site.kind in KINDS
    keys = [site.key for site in weight_sites(model)]
    assert len(keys) == len(set(keys))


def test_slices_tile_their_whole(case: Any) -> None:
    sites = weight_sites(case.build())
    for whole in sites:
        slices = [s for s in sites if s.part and (s.module, s.weight) == (whole.module, whole.weight)]
        if whole.part or not slices:
            continue
        edges = sorted(s.rows for s in slices)
        assert edges[0][0] == 0 and edges[-1][1] == whole.shape[0]
        assert all(a[1] == b[0] for a, b in pairwise(edges))
        assert {s.label for s in slices} == {f"{whole.weight}_{s.part}" for s in slices}


def test_adapters_and_copies_change_nothing(case: Any) -> None:
    model = case.build()
    before = weight_sites(model), parameter_sites(model)
    case.attach(model, "core.full")
    case.attach(model, "core.lora", name="b")
    assert (weight_sites(model), parameter_sites(model)) == before
    twin = copy.deepcopy(model)
    assert (weight_sites(twin), parameter_sites(twin)) == before
    assert all("peftx" not in path for path, _ in base_modules(model))


@pytest.mark.parametrize(
    ("name", "key", "kind", "role", "shape"),
    [
        ("transformers_gpt2", "transformer.h.0.attn.c_attn", "linear_t", "attention.qkv", (24, 8)),
        ("transformers_gpt2", "transformer.wte", "embedding", "embedding.token", (8, 20)),
        ("timm_vit", "patch_embed.proj", "conv2d", "embedding.patch", (8, 3, 4, 4)),
        ("packed_attention", "trunk.attn.in_proj[k]", "packed_attention", "attention.k", (8, 8)),
        ("packed_attention_widths", "trunk.attn.k_proj", "packed_attention", "attention.k", (8, 6)),
        ("packed_attention", "trunk.attn.out_proj", "packed_attention", "attention.out", (8, 8)),
        ("openai_whisper", "decoder.blocks.0.cross_attn.query", "linear", "cross_attention.q", (8, 8)),
        ("conv1d", "trunk.2", "conv1d", "conv", (4, 3, 3)),
        (
            "open_clip",
            "visual.transformer.resblocks.0.attn.in_proj",
            "packed_attention",
            "attention.qkv",
            (24, 8),
        ),
    ],
)
def test_known_sites(
    case_of: Callable[[str], Any], name: str, key: str, kind: str, role: str, shape: tuple[int, ...]
) -> None:
    site = {s.key: s for s in weight_sites(case_of(name).build())}[key]
    assert (site.kind, site.role, site.shape) == (kind, role, shape)


@pytest.mark.parametrize(
    ("name", "key", "reader"),
    [
        ("timm_beit", "blocks.0.attn.qkv", "blocks.0.attn"),
        ("packed_attention", "trunk.attn.out_proj", "trunk.attn"),
        ("timm_vit", "blocks.0.attn.qkv", None),
        ("encoder", "trunk.encoder.layers.0.linear1", None),
        ("encoder", "trunk.encoder.layers.0.self_attn.out_proj", "trunk.encoder.layers.0.self_attn"),
    ],
)
def test_who_reads_a_weight_that_is_not_called(
    case_of: Callable[[str], Any], name: str, key: str, reader: str | None
) -> None:
    site = {s.key: s for s in weight_sites(case_of(name).build())}[key]
    assert site.reader == reader
    assert site.product is (reader is None), "where the input is never seen, no delta owns the product"


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(2 * x)


def test_a_subclass_with_its_own_forward_keeps_it() -> None:
    model = nn.Sequential(Doubled(3, 2))
    assert [(s.kind, s.product) for s in weight_sites(model)] == [("linear", False)]
    x = torch.randn(4, 3)
    before = model(x)
    adapted = peftx.attach(model, "core.lora", targets=["0"], also_train=[])
    assert torch.equal(model(x), before)
    with torch.no_grad():
        a, b = adapted.tensors()["0", "A"].normal_(), adapted.tensors()["0", "B"].normal_()
    expected = before + 2 * (2 * x) @ a.t() @ b.t()  # alpha / rank = 2
    assert torch.allclose(model(x), expected, atol=1e-4)


def test_sequence_first_models_say_so(case_of: Callable[[str], Any]) -> None:
    dims = {s.key: s.batch_dim for s in weight_sites(case_of("encoder_sequence_first").build())}
    assert dims["trunk.encoder.layers.0.linear1"] == 1
    assert dims["trunk.encoder.layers.0.self_attn.in_proj[q]"] == 1
    assert {s.batch_dim for s in weight_sites(case_of("encoder").build())} == {0}


class Responses(nn.Module):
    """Is called a norm, and ends in no product with its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))


def test_normalisations_are_sites_with_their_bias() -> None:
    norms = {
        "layer": nn.LayerNorm(4),
        "group": nn.GroupNorm(2, 4),
        "batch": nn.BatchNorm2d(4),
        "rms": nn.RMSNorm(4),
        "shiftless": nn.LayerNorm(4, bias=False),
        "bare": nn.LayerNorm(4, elementwise_affine=False),
        "responses": Responses(),
    }
    sites = {site.key: site for site in norm_sites(nn.ModuleDict(norms))}
    assert set(sites) == {"layer", "group", "batch", "rms", "shiftless"}
    assert {site.kind for site in sites.values()} == {"norm"} and not any(s.product for s in sites.values())
    assert [key for key, site in sites.items() if site.bias is None] == ["rms", "shiftless"]
    assert all(site.weight == "weight" and site.shape == (4,) for site in sites.values())


class Shifted(Delta):
    """The least a method on normalisations needs: it is given weight and bias, and gives both back."""

    changes_bias = True

    def __init__(self, site: Site, config: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(site)
        assert bias is None or bias.shape == weight.shape
        self.gain = nn.Parameter(torch.full_like(weight, 2.0))

    def effective(
        self, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        return weight * self.gain, None if bias is None else bias + self.gain

    @staticmethod
    def param_count(site: Site, config: Any) -> int:
        return site.numel


class OfNorms(AdapterMethod):
    Delta = Shifted
    kinds = ("linear", "norm")


def test_a_method_may_take_normalisations_by_role_and_by_name() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.BatchNorm1d(4))
    x = torch.randn(5, 3)
    want = 2 * model[1](model[0](x)) + 2
    adapted = peftx.attach(model, OfNorms, targets=["norm"], also_train=[])
    assert adapted.attachment().plan.keys == ("1", "2")
    assert torch.allclose(model[1](model[0](x)), want, atol=1e-6)
    adapted.detach()
    assert peftx.attach(model, OfNorms, targets=["1"], also_train=[]).attachment().plan.keys == ("1",)


def test_sites_in_the_order_of_the_model() -> None:
    layers = nn.Sequential(*(nn.Linear(2, 2) for _ in range(12)))
    sites = weight_sites(layers)
    assert [site.module for site in sorted(sites, key=lambda site: site.key)][:3] == ["0", "1", "10"]
    ordered = in_model_order(layers, reversed(sites))
    assert [site.module for site in ordered] == [str(place) for place in range(12)]
