"""The two halves of a block: where the second one, the feed-forward network's, reads the residual stream."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from peftx.adapters.site import SitePlan
from peftx.adapters.survey import norm_sites, weight_sites
from peftx.errors import SelectionError

__all__ = ["beside_the_mlp", "mlp_input", "mlp_norm"]

#: what libraries call the norm in front of the MLP, in any order of registration
_NAMES = ("layernorm_after", "layer_norm2", "ln_2")
#: timm, torch; in blocks of timm that put their norms behind, it is registered after the MLP
_BEFORE = "norm2"


def mlp_norm(model: nn.Module, block: str) -> str | None:
    """Path of the norm whose input is the stream behind the attention and in front of the MLP; None where none is.

    Told by its name among the block's children (timm, open_clip, transformers, torch), because nothing in a
    module says in which order its children run.
    """
    norms = {site.module for site in norm_sites(model)}
    path = f"{block}." if block else ""
    first = mlp_input(model, block).removeprefix(path).partition(".")[0]
    module = model.get_submodule(block)
    names = list(module._modules)
    for name in names:
        if f"{path}{name}" not in norms:
            continue
        ahead = names.index(name) < names.index(first) or getattr(module, "norm_first", False) is True
        if name in _NAMES or (name == _BEFORE and ahead):
            return f"{path}{name}"
    return None


def mlp_input(model: nn.Module, block: str) -> str:
    """Path of the first layer of a block's MLP, whose input is the MLP's."""
    path = f"{block}." if block else ""
    layers = [site for site in weight_sites(model) if site.module.startswith(path) and not site.part]
    return next(site.module for site in layers if site.role in ("mlp.up", "mlp.gate"))


def beside_the_mlp(found: SitePlan, model: nn.Module, *, other: str = "", normed: bool = False) -> SitePlan:
    """The blocks of a plan, each with the place where a branch beside its MLP reads.

    Args:
        other: the option that needs no such place, if there is one, as a sentence names it.
        normed: behind the norm in front of the MLP, not in front of that.

    Raises:
        SelectionError: a target is no block, or a block has no place that can be told to be in front of its MLP.
    """
    sites, other = [], f"set {other}, or " if other else ""
    for site in found:
        if site.role != "block":
            raise SelectionError(
                f"{site.key} is the {site.role} of a block, and a parallel branch belongs to a whole block: "
                f"{other}target the block"
            )
        norm = mlp_norm(model, site.module)
        if norm is None:
            raise SelectionError(
                f"{site.key} ({type(model.get_submodule(site.module)).__name__}) has no norm that is known to stand "
                f"between an attention and the MLP, so there is nothing for a parallel branch to read; {other}use "
                "vision.adaptertune"
            )
        sites.append(replace(site, read=mlp_input(model, site.module) if normed else norm))
    return SitePlan(tuple(sites))
