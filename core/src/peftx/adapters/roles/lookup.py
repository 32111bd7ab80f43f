"""Which role every place of a model plays: the families' tables applied to one model.

Only type names, module paths and a few plain attributes are read, so a model on the meta device, inside a
bigger module, deep-copied, or with adapters already attached gives the same answer.

Order of authority for one place, the first answer wins: the classification head; the table of the innermost
family around it; families further out; building blocks (``nn.TransformerEncoderLayer``, a bare
``nn.MultiheadAttention``); the generic fallback by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from peftx.adapters.roles import generic
from peftx.adapters.roles.heads import head_of, inside
from peftx.adapters.roles.kinds import class_names, kind_of, own_parameters
from peftx.adapters.roles.registry import tables
from peftx.adapters.roles.table import RoleHit, RoleTable, Rule, matches_class

__all__ = ["RoleHit", "group_of", "lm_head_of", "parameter_roles_of", "roles_of"]

#: child under which an adapted module keeps its adapters; peftx.adapters.slot.SLOT, repeated here without
#: torch
RESERVED = ("peftx", "peftx_bank")

_SUFFIX = {"attention": "attn", "cross_attention": "cross_attn", "mlp": "mlp"}


def roles_of(model: Any) -> dict[str, RoleHit]:
    """Return module path -> role for every layer of a model that an adapter could change.

    Layers are linear, transposed linear, convolution, embedding, packed attention, and any normalisation with
    parameters. Paths are those of ``model.named_modules()``, in that order; a module reachable by two paths
    is listed once, under the first.
    """
    heads = head_of(model)
    layers = [place for place in _walk(model) if place.kind]
    siblings: dict[str, dict[str, str]] = {}
    for place in layers:
        parent, _, leaf = place.path.rpartition(".")
        siblings.setdefault(parent, {})[leaf] = place.kind
    found: dict[str, RoleHit] = {}
    for place in layers:
        hit = _ask(place, "rules", place.path, place.kind) or generic.role_of(
            place.path, place.kind, siblings[place.path.rpartition(".")[0]], place.batch_first
        )
        found[place.path] = _as_head(place, hit) if inside(place.path, heads) else hit
    return found


def parameter_roles_of(model: Any) -> dict[str, RoleHit]:
    """Return parameter path -> role for parameters held by modules that are not layers.

    Class tokens, position tables, layer scales, separate q and v biases, loose projections. Together with the
    parameters of the layers in ``roles_of`` this covers every parameter of the model.
    """
    heads = head_of(model)
    found: dict[str, RoleHit] = {}
    for place in _walk(model):
        if place.kind:
            continue
        for name in own_parameters(place.module):
            path = _join(place.path, name)
            hit = _ask(place, "parameters", path, "") or generic.parameter_role(path, place.batch_first)
            found[path] = _as_head(place, hit) if inside(path, heads) else hit
    return found


def lm_head_of(model: Any) -> tuple[str, ...]:
    """Return the module paths that map features to the vocabulary: never part of the classification head."""
    return tuple(path for path, hit in roles_of(model).items() if hit.role == "lm_head")


def group_of(path: str, hit: RoleHit) -> str:
    """Return the coupling group of a place: its attention or feed-forward block, or ``path`` when it has
    none.

    Query, key, value and output maps of one attention share a group, as do the two or three maps of one
    feed-forward block, for example ``blocks.3.attn`` and ``blocks.3.mlp``.
    """
    return hit.group or path


@dataclass(frozen=True, slots=True)
class _Place:
    """A module on the way down, with the tables that may speak about it and their roots' paths."""

    path: str
    module: Any
    kind: str
    tables: tuple[tuple[RoleTable, str], ...]
    batch_first: bool


@dataclass(frozen=True, slots=True)
class _Above:
    """What a module inherits on the way down."""

    #: index of a table -> path of its root, depth of the deepest module of that family
    roots: dict[int, tuple[str, int]]
    tables: tuple[tuple[RoleTable, str], ...] = ()
    batch_first: bool = True
    #: whether a block has decided `batch_first`: the outermost one does
    decided: bool = False


def _walk(model: Any) -> Iterator[_Place]:
    """Yield the modules of a model, parents first, without looking inside layers or at attached adapters."""
    known = tables()
    by_class: dict[type, tuple[int, ...]] = {}
    seen: set[int] = set()

    def roots_here(path: str, module: Any, above: _Above) -> _Above:
        cls = type(module)
        if cls not in by_class:
            names = class_names(cls)
            by_class[cls] = tuple(i for i, table in enumerate(known) if matches_class(table.roots, names))
        if not by_class[cls]:
            return above
        depth = path.count(".") + 1 if path else 0
        # the root stays the outermost module of its family; the deepest one decides which family speaks first
        roots = dict(above.roots)
        for i in by_class[cls]:
            roots[i] = (roots[i][0] if i in roots else path, depth)
        order = sorted(roots, key=lambda i: (known[i].rank, -roots[i][1], i))
        return replace(above, roots=roots, tables=tuple((known[i], roots[i][0]) for i in order))

    def descend(path: str, module: Any, above: _Above) -> Iterator[_Place]:
        if id(module) in seen:
            return
        seen.add(id(module))
        kind = kind_of(module)
        here = roots_here(path, module, above)
        if not here.decided:
            layout = _layout(module, here.tables, kind)
            if layout is not None:
                here = replace(here, batch_first=layout, decided=True)
        yield _Place(path, module, kind, here.tables, here.batch_first)
        if kind and kind != "packed_attention":
            return
        for name, child in module._modules.items():
            if child is not None and not _is_adapter(name, child):
                yield from descend(_join(path, name), child, here)

    yield from descend("", model, _Above({}))


def _layout(module: Any, ordered: tuple[tuple[RoleTable, str], ...], kind: str) -> bool | None:
    """The ``batch_first`` that holds inside a module, when a packed attention in it decides it."""
    if kind == "packed_attention":
        return bool(module.batch_first)
    names = class_names(type(module))
    for table, _ in ordered:
        if not isinstance(table.batch_first, bool) and matches_class(table.batch_first, names):
            for inner in module.modules():
                if kind_of(inner) == "packed_attention":
                    return bool(inner.batch_first)
    return None


def _ask(place: _Place, which: str, path: str, kind: str) -> RoleHit | None:
    for table, root in place.tables:
        below = path[len(root) + 1 :] if root else path
        if root and path == root:
            below = ""
        rules: tuple[Rule, ...] = getattr(table, which)
        for rule in rules:
            match = rule.match(below, kind)
            if match:
                group = _group(root, rule.role, match.groupdict())
                return RoleHit(rule.role, rule.parts, table.family, group, place.batch_first, rule.raw)
    return None


def _as_head(place: _Place, hit: RoleHit) -> RoleHit:
    family = place.tables[0][0].family if place.tables else hit.family
    return RoleHit("head", family=family, batch_first=hit.batch_first)


def _group(root: str, role: str, named: dict[str, str | None]) -> str:
    suffix = _SUFFIX.get(role.split(".", 1)[0], "")
    if "unit" in named:
        return _join(root, named["unit"] or "") or suffix
    if "block" in named:
        return _join(_join(root, named["block"] or ""), suffix)
    return ""


def _is_adapter(name: str, child: Any) -> bool:
    return name in RESERVED and (name != RESERVED[0] or type(child).__module__.startswith("peftx."))


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)
