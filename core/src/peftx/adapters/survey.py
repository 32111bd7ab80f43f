"""Every site a model has: its layers' weights, slices of fused projections, and single parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

from torch import nn

from peftx.adapters.base import ConvBase, root_base, to_canonical
from peftx.adapters.host import STATISTICS, base_class
from peftx.adapters.roles.generic import FAMILY as GENERIC
from peftx.adapters.roles.lookup import RoleHit, parameter_roles_of, roles_of
from peftx.adapters.roles.vocabulary import part_role
from peftx.adapters.site import Site
from peftx.adapters.slot import is_reserved
from peftx.adapters.surveying import kept

__all__ = [
    "STATISTICS",
    "base_modules",
    "in_model_order",
    "norm_sites",
    "parameter_sites",
    "statistic_sites",
    "weight_sites",
]

_LAYERS: tuple[tuple[type, str], ...] = (
    (nn.Linear, "linear"),
    (nn.Conv1d, "conv1d"),
    (nn.Conv2d, "conv2d"),
    (nn.Embedding, "embedding"),
)
#: normalisations whose last step is ``weight * x + bias``; one that only looks alike (GRN, Gemma's 1 + weight) is none
_AFFINE = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


_roles = kept(roles_of)


def base_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(path, module) of the model's own modules: what adapters brought is left out."""
    for path, module in model.named_modules():
        if not is_reserved(path):
            yield path, module


@cache
def _kind(cls: type) -> str:
    for layer, kind in _LAYERS:
        if issubclass(cls, layer):
            return kind
    if any(
        f"{base.__module__}.{base.__qualname__}" == "transformers.pytorch_utils.Conv1D"
        for base in cls.__mro__
    ):
        return "linear_t"
    return ""


@kept
def weight_sites(model: nn.Module) -> list[Site]:
    """Sites whose weight is a layer's matrix, table or kernel, whole and by slice.

    A fused projection gives one site for the whole weight and one for each slice; a plan holds either.
    """
    hits = _roles(model)
    found: list[Site] = []
    attentions: dict[str, nn.MultiheadAttention] = {}
    for path, module in base_modules(model):
        if isinstance(module, nn.MultiheadAttention):
            attentions[path] = module
            found.extend(_attention_sites(path, module, hits.get(path)))
            continue
        cls = base_class(module)
        kind = _kind(cls)
        weight: Any = module._parameters.get("weight")
        if not kind or weight is None:
            continue
        hit = hits.get(path) or RoleHit(role="other")
        packed = path.rpartition(".")[0] in attentions and path.endswith("out_proj")
        reader = _reader(model, path, packed or hit.raw)
        transposed = kind in ("linear_t", "embedding")
        product = root_base(cls)
        site = Site(
            key=path,
            module=path,
            kind="packed_attention" if packed else kind,
            role=hit.role,
            shape=tuple(weight.shape[::-1] if transposed else weight.shape),
            dtype=weight.dtype,
            weight="weight",
            bias="bias" if "bias" in module._parameters and module._parameters["bias"] is not None else None,
            group=hit.group,
            batch_dim=0 if hit.batch_first else 1,
            groups=getattr(module, "groups", 1) if product is ConvBase else 1,
            product=product is not None and reader is None,
            reader=reader,
        )
        found.append(site)
        if kind in ("linear", "linear_t") and _sliceable(site, hit):
            found.extend(_slices(site, hit))
    return found


def _reader(model: nn.Module, path: str, raw: bool) -> str | None:
    """The module around a layer, when it reads the layer's weight and never calls it.

    The encoder layers of torch do so on their fast path alone, which a partitioned batch does not take.
    """
    parent = path.rpartition(".")[0]
    if not raw or not path:
        return None
    layers = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    return None if issubclass(base_class(model.get_submodule(parent)), layers) else parent


def _sliceable(site: Site, hit: RoleHit) -> bool:
    """Whether a fused weight is cut into equal parts.

    A table knows its family. A weight that is only named like a fused one may hold grouped queries, whose parts
    are unequal, so there the parts must be square.
    """
    parts = len(hit.parts)
    if parts < 2 or site.shape[0] % parts:
        return False
    return hit.family != GENERIC or site.shape[0] == parts * site.shape[1]


def _slices(site: Site, hit: RoleHit) -> Iterator[Site]:
    rows = site.shape[0] // len(hit.parts)
    for index, part in enumerate(hit.parts):
        yield replace(
            site,
            key=f"{site.key}[{part}]",
            role=part_role(hit.role, part),
            shape=(rows, *site.shape[1:]),
            rows=(index * rows, (index + 1) * rows),
            part=part,
        )


def _attention_sites(path: str, module: nn.MultiheadAttention, hit: RoleHit | None) -> Iterator[Site]:
    """The input projections of a packed attention: one matrix, or three when key and value widths differ."""
    hit = hit or RoleHit(role="attention.qkv", parts=("q", "k", "v"))
    parameters = module._parameters
    prefix = f"{path}." if path else ""
    bias = "in_proj_bias" if parameters.get("in_proj_bias") is not None else None
    common: dict[str, Any] = {
        "module": path,
        "kind": "packed_attention",
        "bias": bias,
        "group": hit.group,
        "batch_dim": 0 if module.batch_first else 1,
        "product": False,
    }
    packed: Any = parameters.get("in_proj_weight")
    if packed is not None:
        whole = Site(
            key=f"{prefix}in_proj",
            role=hit.role,
            shape=tuple(packed.shape),
            dtype=packed.dtype,
            weight="in_proj_weight",
            **common,
        )
        yield whole
        yield from _slices(whole, replace(hit, parts=("q", "k", "v")))
        return
    for part in ("q", "k", "v"):
        weight: Any = parameters.get(f"{part}_proj_weight")
        if weight is not None:
            yield Site(
                key=f"{prefix}{part}_proj",
                role=part_role(hit.role, part),
                shape=tuple(weight.shape),
                dtype=weight.dtype,
                weight=f"{part}_proj_weight",
                **{**common, "bias": None},
            )


def in_model_order(model: nn.Module, sites: Iterable[Site]) -> list[Site]:
    """The sites as their modules stand in the model, slices of one weight by their rows; a plan sorts by key."""
    places = {path: place for place, (path, _) in enumerate(base_modules(model))}
    return sorted(sites, key=lambda site: (places[site.module], site.rows or (0, 0)))


@kept
def norm_sites(model: nn.Module) -> list[Site]:
    """One site for every normalisation layer that ends in ``weight * x + bias``: the weight, with the bias beside it.

    The layer's own forward runs and reads both, so no delta owns the product.
    """
    hits = _roles(model)
    found: list[Site] = []
    for path, module in base_modules(model):
        weight: Any = module._parameters.get("weight")
        if weight is None or not isinstance(module, _AFFINE):
            continue
        hit = hits.get(path) or RoleHit(role="norm")
        found.append(
            Site(
                key=path,
                module=path,
                kind="norm",
                role=hit.role,
                shape=tuple(weight.shape),
                dtype=weight.dtype,
                weight="weight",
                bias="bias" if module._parameters.get("bias") is not None else None,
                group=hit.group,
                batch_dim=0 if hit.batch_first else 1,
                product=False,
            )
        )
    return found


@kept
def parameter_sites(model: nn.Module, *, bias_slices: bool = False) -> list[Site]:
    """One site for every parameter of the model, as `Owned` takes them; keys are the parameters' names.

    With `bias_slices` the bias of a fused projection also gives a site for each slice, as its weight does in
    `weight_sites`. They are asked for by methods that train biases only: to any other, ``attention.q`` of a fused
    projection would mean its bias and silently leave its weight out.
    """
    hits, loose = _roles(model), parameter_roles_of(model)
    found: list[Site] = []
    attentions = {path for path, module in base_modules(model) if isinstance(module, nn.MultiheadAttention)}
    for path, module in base_modules(model):
        cls = base_class(module)
        layer = _kind(cls)
        packed = path.rpartition(".")[0] in attentions and path.endswith("out_proj")
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            key = f"{path}.{name}" if path else name
            hit = hits.get(path) or loose.get(key) or RoleHit(role="other")
            reader = _reader(model, path, packed or hit.raw)
            if layer and name in ("weight", "bias"):
                kind = layer
            elif hit.role == "norm":
                kind = "norm"
            else:
                kind = "parameter"
            site = Site(
                key=key,
                module=path,
                kind=kind,
                role=hit.role,
                shape=tuple(parameter.shape),
                dtype=parameter.dtype,
                weight=name,
                bias="bias" if layer and module._parameters.get("bias") is not None else None,
                group=hit.group,
                batch_dim=0 if hit.batch_first else 1,
                product=bool(layer) and root_base(cls) is not None and reader is None,
                reader=reader,
            )
            found.append(site)
            if bias_slices:
                found.extend(_bias_slices(site, module, hit))
    return found


def _bias_slices(site: Site, module: nn.Module, hit: RoleHit) -> Iterator[Site]:
    """The slices of a bias, where the weight it belongs to has them."""
    if site.weight == "in_proj_bias" and isinstance(module, nn.MultiheadAttention):
        # one packed bias, also where widths differ and the weights stand apart
        yield from _slices(site, replace(hit, parts=("q", "k", "v")))
    weight: Any = module._parameters.get("weight")
    if site.weight == "bias" and site.kind in ("linear", "linear_t") and weight is not None:
        shape = tuple(to_canonical(site.kind, weight).shape)
        if _sliceable(replace(site, shape=shape), hit):
            yield from _slices(site, hit)


def statistic_sites(model: nn.Module) -> list[Site]:
    """One site for every running statistic of the model's normalisation layers."""
    return [
        Site(
            key=f"{path}.{name}" if path else name,
            module=path,
            kind="statistic",
            role="norm",
            shape=tuple(buffer.shape),
            dtype=buffer.dtype,
            weight=name,
            product=False,
        )
        for path, module in base_modules(model)
        for name in STATISTICS
        if (buffer := module._buffers.get(name)) is not None
    ]
