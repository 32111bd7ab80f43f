"""Rank factors as HF PEFT's LORA tensors.

PEFT knows one adapter per module, so slices of a fused projection become one block-structured pair of factors, and a
grouped convolution a pair whose A sees all channels. The scale is folded into B, so that alpha = r everywhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from peftx.adapters.base import to_canonical
from peftx.adapters.delta import Delta
from peftx.adapters.methods.dora import DoRADelta
from peftx.adapters.site import Site
from peftx.artifacts.peft_format import PREFIX, exactly, targets_of
from peftx.errors import ArtifactError

__all__ = ["Factors", "factors_of", "write_lora"]

#: values of one factor beyond which a grouped convolution is not written out for PEFT
_LARGEST_FACTOR = 2**26


@dataclass(frozen=True, slots=True)
class Factors:
    """One module's pair: B (out, r), A (r, in, ...), as matrices, and the magnitudes of DoRA."""

    site: Site
    b: Tensor
    a: Tensor
    m: Tensor | None = None


def factors_of(delta: Delta) -> Factors | None:
    """The factors of one site's update, scale folded in, with the magnitudes of DoRA; None where it has none."""
    if isinstance(delta, DoRADelta):
        return Factors(delta.site, delta.scale * delta.B, delta.A, delta.m)
    pair = delta.rank_factors()
    return None if pair is None else Factors(delta.site, *pair)


def write_lora(
    model: nn.Module, found: dict[tuple[str, str], list[Factors]]
) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
    """(type, configuration, tensors) of LORA adapters, by module path and name of the weight.

    Raises:
        ArtifactError: some sites are DoRA and some are not, or a factor would be absurdly large.
    """
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    magnitudes = {factors.m is not None for pieces in found.values() for factors in pieces}
    if len(magnitudes) > 1:
        raise ArtifactError("some sites are DoRA and some are not, and a PEFT adapter is all or none")
    for (path, weight), pieces in found.items():
        module = model.get_submodule(path)
        joined = _join(module, weight, pieces)
        site = joined.site
        if site.kind == "packed_attention":
            continue
        a, b = joined.a, joined.b
        ranks[path] = a.shape[0]
        if site.kind == "embedding":
            tensors[f"{PREFIX}{path}.lora_embedding_A"] = a
            tensors[f"{PREFIX}{path}.lora_embedding_B"] = b
        else:
            if site.kind.startswith("conv"):
                a, b = _convolution(site, a, b)
                ranks[path] = a.shape[0]
            tensors[f"{PREFIX}{path}.lora_A.weight"] = a
            tensors[f"{PREFIX}{path}.lora_B.weight"] = b
        if joined.m is not None:
            m = joined.m
            if site.kind.startswith("conv"):
                m = m.view(1, -1, *(1,) * len(site.shape[2:]))
            tensors[f"{PREFIX}{path}.lora_magnitude_vector"] = m
    _packed(model, found, tensors, ranks)
    rank = Counter(ranks.values()).most_common(1)[0][0]
    others = {exactly(path): own for path, own in sorted(ranks.items()) if own != rank}
    config = {
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "use_rslora": False,
        "use_dora": True in magnitudes,
        "bias": "none",
        "lora_bias": False,
        "init_lora_weights": True,
        "fan_in_fan_out": any(f.site.kind == "linear_t" for pieces in found.values() for f in pieces),
        "target_modules": targets_of(model, sorted(ranks)),
        "modules_to_save": None,
    }
    return "LORA", config, tensors


def _join(module: nn.Module, weight: str, pieces: list[Factors]) -> Factors:
    """One pair for the whole weight: slices, or several updates of one site, side by side."""
    site = pieces[0].site
    if len(pieces) == 1 and site.rows is None:
        return pieces[0]
    parameters: dict[str, Any] = module._parameters
    matrix = to_canonical(site.kind, parameters[weight].detach()).flatten(1)
    rank = sum(piece.a.shape[0] for piece in pieces)
    like = pieces[0].b
    b = like.new_zeros(matrix.shape[0], rank)
    m = None if pieces[0].m is None else matrix.to(like.dtype).norm(dim=1)
    at = 0
    for piece in pieces:
        start, stop = piece.site.rows or (0, matrix.shape[0])
        b[start:stop, at : at + piece.a.shape[0]] = piece.b
        at += piece.a.shape[0]
        if m is not None and piece.m is not None:
            m[start:stop] = piece.m
    return Factors(site, b, torch.cat([piece.a for piece in pieces]), m)


def _convolution(site: Site, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Kernels of PEFT's two convolutions; A of a grouped layer sees all channels, and uses those of its group."""
    rank, (out, width, *kernel) = a.shape[0], site.shape
    ones = (1,) * len(kernel)
    a, b = a.view(rank, width, *kernel), b.view(out, rank, *ones)
    if site.groups == 1:
        return a, b
    if rank * site.groups * width * site.groups * a[0, 0].numel() > _LARGEST_FACTOR:
        raise ArtifactError(
            f"{site.key} has {site.groups} groups of channels, for which PEFT's A would have more values than the "
            "layer is worth; exclude it, or export the merged model"
        )
    whole = a.new_zeros(site.groups, rank, site.groups, width, *kernel)
    for group in range(site.groups):
        whole[group, :, group] = a
    return whole.view(site.groups * rank, site.groups * width, *kernel), b


def _packed(
    model: nn.Module,
    found: dict[tuple[str, str], list[Factors]],
    tensors: dict[str, Tensor],
    ranks: dict[str, int],
) -> None:
    """nn.MultiheadAttention: PEFT always adapts input and output projection together; the output's stays zero."""
    for (path, weight), pieces in found.items():
        if pieces[0].site.kind != "packed_attention":
            continue
        joined = _join(model.get_submodule(path), weight, pieces)
        ranks[path] = rank = joined.a.shape[0]
        width = joined.site.shape[1]
        tensors[f"{PREFIX}{path}.lora_A.weight"] = joined.a
        tensors[f"{PREFIX}{path}.lora_B.weight"] = joined.b
        tensors[f"{PREFIX}{path}.base_layer.out_proj.lora_A.weight"] = joined.a.new_zeros(rank, width)
        tensors[f"{PREFIX}{path}.base_layer.out_proj.lora_B.weight"] = joined.a.new_zeros(width, rank)
