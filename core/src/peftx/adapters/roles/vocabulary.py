"""The words for what a place in a model does, and the one way to ask for places by these words.

A role names a function in the network, not a library's spelling: ``attention.q`` is timm's first third of
``qkv``, transformers' ``q_proj`` or ``query``, and the first third of ``in_proj_weight``. Methods target
roles, so one default fits every model family. A query is a role, or a prefix of roles (``attention``,
``mlp``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from peftx.errors import SelectionError, near_matches

__all__ = ["ROLES", "expand", "is_query", "meaning", "part_role", "select"]

_MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "attention.qkv": "one weight that produces queries, keys and values of self-attention",
        "attention.q": "produces the queries of self-attention",
        "attention.k": "produces the keys of self-attention",
        "attention.v": "produces the values of self-attention",
        "attention.kv": "one weight that produces keys and values of self-attention",
        "attention.out": "maps the attended values back to the residual stream",
        "attention.gate": "gates the attended values before the output map",
        "cross_attention.qkv": "packed weight of an attention whose keys come from another sequence",
        "cross_attention.q": "produces the queries of cross-attention",
        "cross_attention.k": "produces the keys of cross-attention",
        "cross_attention.v": "produces the values of cross-attention",
        "cross_attention.kv": "one weight that produces keys and values of cross-attention",
        "cross_attention.out": "maps the values attended in cross-attention back to the residual stream",
        "mlp.up": "widens the residual stream inside a feed-forward block",
        "mlp.gate": "produces the multiplicative gate of a gated feed-forward block",
        "mlp.down": "narrows a feed-forward block back to the residual stream",
        "block": "a whole residual block: attention and feed-forward network",
        "norm": "normalises: layer, batch, group, RMS, response",
        "embedding.patch": "turns raw input (pixels, frames) into tokens or a first feature map",
        "embedding.token": "looks up a vector per vocabulary entry",
        "embedding.position": "encodes position: tables, relative biases and the nets behind them",
        "embedding.type": "looks up a vector per segment or token type",
        "embedding.class": "a learned token: class, distillation, register, mask, pooling query",
        "scale": "a learned multiplier: layer scale, logit scale",
        "conv": "a convolution inside the trunk, depthwise or not",
        "downsample": "changes resolution or width between stages, or on a shortcut",
        "pooler": "turns token features into one vector, before the head",
        "projection": "maps features into a shared or intermediate space, before the head",
        "head": "the task's output layer: replaced and trained with every adapter",
        "lm_head": "maps features to vocabulary entries; often tied to embedding.token",
        "other": "none of the above",
    }
)

ROLES: frozenset[str] = frozenset(_MEANINGS)
"""Every role; the set is closed, so a table with a misspelt role is refused when it is built."""

_PREFIXES = frozenset(role.split(".")[0] for role in ROLES if "." in role)
_QUERIES = ROLES | _PREFIXES

# A query for a fused weight also means the separate weights of models that do not fuse.
_WIDER: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        f"{base}.{fused}": tuple(f"{base}.{name}" for name in names)
        for base in ("attention", "cross_attention")
        for fused, names in (("qkv", ("qkv", "q", "k", "v", "kv")), ("kv", ("kv", "k", "v")))
    }
)


def meaning(role: str) -> str:
    """Return the one-line meaning of a role (KeyError when it is not one)."""
    return _MEANINGS[role]


def is_query(text: str) -> bool:
    """Whether ``text`` is a role or a prefix of roles (so not a glob, a regex or a module path)."""
    return text in _QUERIES


def part_role(role: str, part: str) -> str:
    """Return the role of one slice: ``part_role("attention.qkv", "q") == "attention.q"``."""
    return f"{role.split('.', 1)[0]}.{part}" if part else role


def expand(query: str) -> Callable[[str], bool]:
    """Turn a query into a predicate on roles.

    ``attention`` accepts every ``attention.*`` (not ``cross_attention.*``); ``attention.qkv`` also accepts
    the separate q, k, v and kv weights of models that do not fuse them; any other role accepts itself.

    Raises:
        SelectionError: the query is neither a role nor a prefix of roles.
    """
    accepted = _accepted(query)
    return accepted.__contains__


def select(queries: Iterable[str], role: str, parts: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return what the queries want of a place: nothing, the whole weight, or some of its slices.

    Args:
        queries: roles or prefixes of roles, any of which may match.
        role: the role of the place.
        parts: names of the equal slices of its weight along the output axis, in order; empty when not fused.

    Returns:
        ``()`` for nothing, ``("",)`` for the whole weight, else the wanted slices in the weight's order, for
        example ``("q", "v")``. A query for the whole wins over queries for slices; all slices stay slices.

    Raises:
        SelectionError: a query is neither a role nor a prefix of roles.
    """
    accepted = frozenset().union(*(_accepted(query) for query in queries))
    if role in accepted:
        return ("",)
    return tuple(part for part in parts if part_role(role, part) in accepted)


def _accepted(query: str) -> frozenset[str]:
    if query in _WIDER:
        return frozenset(_WIDER[query])
    if query in ROLES:
        return frozenset((query,))
    if query in _PREFIXES:
        # the bare prefix is the role of the whole attention or feed-forward network, as a place in activation space
        return frozenset(role for role in ROLES if role.startswith(query + ".")) | {query}
    raise SelectionError(
        f"'{query}' is not a role; roles are {', '.join(sorted(ROLES))}, or a prefix such as 'attention'."
        + near_matches(query, _QUERIES)
    )
