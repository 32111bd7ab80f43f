"""Places in activation space: whole attentions, feed-forward networks and blocks, found from the roles of their layers.

No table lists them. The layers of one attention share a coupling group, and the smallest module that holds them all is
the attention, if it holds nothing else that is known; likewise for a feed-forward network. A block is the smallest
module that holds a feed-forward network and an attention.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import nn

from peftx.adapters.site import Site
from peftx.adapters.survey import weight_sites
from peftx.adapters.surveying import kept

__all__ = ["activation_sites"]

_PARTS = ("attention", "cross_attention", "mlp")
_LINEAR = frozenset({"linear", "linear_t", "packed_attention"})


@kept
def activation_sites(model: nn.Module) -> list[Site]:
    """Sites of kind ``activation``, roles ``attention``, ``cross_attention``, ``mlp`` and ``block``.

    Their key is the module's path. Where a library writes a feed-forward network's layers straight into the block
    (transformers' ViT), there is a block but no module to be an ``mlp``.
    """
    layers = [site for site in weight_sites(model) if not site.part]
    groups: dict[tuple[str, str], list[Site]] = {}
    for site in layers:
        part = site.role.partition(".")[0]
        if part in _PARTS and site.group:
            groups.setdefault((part, site.group), []).append(site)
    found: dict[str, Site] = {}
    for (part, group), members in groups.items():
        end = _end(members)
        if end is None:
            continue
        path = _common(member.module for member in members)
        modules = {member.module for member in members}
        # one projection alone has no ancestor of its own
        if path and path in modules and len(modules) == 1 and members[0].kind != "packed_attention":
            path = path.rpartition(".")[0]
        others = (site for site in layers if site.module not in modules and _part(site) in _PARTS)
        if path and not any(_inside(other.module, path) for other in others):
            found[path] = _site(path, part, group, end)
        if part == "mlp":
            block = _block(path or _common(modules), layers)
            rest = (site for site in layers if _part(site) == "mlp" and site.group != group)
            if block and block not in found and not any(_inside(site.module, block) for site in rest):
                found[block] = _site(block, "block", "", end, _channel_dim(block, layers))
    return sorted(found.values(), key=lambda site: site.key)


def _part(site: Site) -> str:
    return site.role.partition(".")[0]


def _end(members: Sequence[Site]) -> Site | None:
    """The layer whose output the whole returns: its width is that of the activation, features last."""
    ends = [member for member in members if member.role.partition(".")[2] in ("out", "down")]
    return ends[0] if len(ends) == 1 and ends[0].kind in _LINEAR else None


def _block(path: str, layers: Sequence[Site]) -> str:
    """The smallest module above `path` that also holds an attention, or the one above when the model has none."""
    attentions = [site.module for site in layers if _part(site) in ("attention", "cross_attention")]
    above = path if any(_inside(module, path) for module in attentions) else path.rpartition(".")[0]
    if not attentions:
        return above
    while above and not any(_inside(module, above) for module in attentions):
        above = above.rpartition(".")[0]
    return above


def _channel_dim(block: str, layers: Sequence[Site]) -> int:
    """Where a block keeps its channels: last, unless convolutions do the mixing in it (ConvNeXt)."""
    inside = [site for site in layers if _inside(site.module, block)]
    mixes = any(_part(site) in ("attention", "cross_attention") for site in inside)
    return 1 if not mixes and any(site.kind == "conv2d" for site in inside) else -1


def _common(paths: Iterable[str]) -> str:
    split = [path.split(".") for path in paths]
    shared: list[str] = []
    for names in zip(*split, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return ".".join(shared)


def _inside(path: str, parent: str) -> bool:
    return path == parent or path.startswith(f"{parent}.")


def _site(path: str, role: str, group: str, end: Site, channel_dim: int = -1) -> Site:
    return Site(
        key=path,
        module=path,
        kind="activation",
        role=role,
        shape=(end.shape[0],),
        dtype=end.dtype,
        weight="",
        group=group,
        batch_dim=end.batch_dim,
        product=False,
        channel_dim=channel_dim,
    )
