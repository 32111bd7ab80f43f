"""The shape of a role table: for one model family, which path plays which role.

A table is data: regular expressions over class names (where a family starts) and over paths below that root.
It never touches a tensor and imports no model library.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from peftx.adapters.roles.vocabulary import ROLES, part_role
from peftx.errors import ConfigError, near_matches

__all__ = ["Head", "RoleHit", "RoleTable", "Rule"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a table: paths that match ``pattern`` play ``role``.

    Attributes:
        pattern: regular expression, matched in full against the path relative to the family's root (``""`` is
            the root itself). A named group ``unit`` holds the coupling group, usually the path of the
            attention or feed-forward module; a group ``block`` holds the path of a block to which ``attn``,
            ``cross_attn`` or ``mlp`` is added when the library has no such module.
        role: a word of the vocabulary.
        parts: names of the equal slices of a fused weight along its OUTPUT axis, in order, for example
            ``("q", "k", "v")``; the role of a slice is that of ``part_role``. Empty when the weight is not
            fused, or its slices are unequal or interleaved.
        kinds: layer kinds (see ``kind_of``) the rule is limited to; empty for any.
        raw: the module around the layer may read its weight and never call it.
    """

    pattern: str
    role: str
    parts: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    raw: bool = False

    def __post_init__(self) -> None:
        for role in (self.role, *(part_role(self.role, part) for part in self.parts)):
            if role not in ROLES:
                raise ConfigError(
                    f"rule '{self.pattern}' names the role '{role}', which is not in the vocabulary."
                    + near_matches(role, ROLES)
                )
        compiled(self.pattern)

    def match(self, path: str, kind: str) -> re.Match[str] | None:
        """Match a relative path of a layer of the given kind."""
        if self.kinds and kind not in self.kinds:
            return None
        return compiled(self.pattern).fullmatch(path)


@dataclass(frozen=True, slots=True)
class Head:
    """Where the classification head of some classes is.

    Attributes:
        classes: regular expressions on ``module.qualname`` of a class of the model (through its bases).
        paths: module paths below that model; those that do not exist or hold no parameter are dropped.
    """

    classes: tuple[str, ...]
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleTable:
    """Roles of one model family.

    Attributes:
        family: a short name, shown by ``explain``.
        roots: regular expressions, matched in full against ``module.qualname`` of a class through its bases.
            The outermost module that matches is the root; rules see paths below it.
        rules: tried in order, the first match wins; a path that none matches goes to the next table.
        parameters: like ``rules``, for parameters held by modules that are not layers (class token,
            ``gamma``).
        heads: where the classification head is; the first entry that matches wins.
        batch_first: True when activations are (B, T, D) or (B, ...); else class patterns of the blocks inside
            which activations follow the ``batch_first`` of the block's packed attention.
        rank: 0 for a family; larger for building blocks, which are asked after any family around them.
        note: what a reader of the table should know.
    """

    family: str
    roots: tuple[str, ...]
    rules: tuple[Rule, ...]
    parameters: tuple[Rule, ...] = ()
    heads: tuple[Head, ...] = ()
    batch_first: bool | tuple[str, ...] = True
    rank: int = 0
    note: str = ""

    def __post_init__(self) -> None:
        for pattern in (*self.roots, *(c for head in self.heads for c in head.classes)):
            compiled(pattern)


@dataclass(frozen=True, slots=True)
class RoleHit:
    """What one place of a model is.

    Attributes:
        role: a word of the vocabulary.
        parts: names of the equal slices of its weight along the output axis, in order; empty when not fused.
        family: the table that said so (``"generic"`` for the fallback by name).
        group: name shared by coupled places, for example ``blocks.3.mlp``; empty when it stands alone.
        batch_first: whether the first axis of its input is the batch (False inside sequence-first attention).
        raw: the module around the layer may read its weight and never call it (BEiT's qkv), so only a changed
            weight, not a changed forward, is sure to take effect.
    """

    role: str
    parts: tuple[str, ...] = ()
    family: str = "generic"
    group: str = ""
    batch_first: bool = True
    raw: bool = False


@lru_cache(maxsize=4096)
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern once; a bad one is refused with its text.

    Raises:
        ConfigError: the pattern is not a regular expression.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"the pattern '{pattern}' of a role table is not a regular expression: {error}."
        ) from error


def matches_class(patterns: tuple[str, ...], names: tuple[str, ...]) -> bool:
    """Whether any class name matches any pattern in full."""
    return any(compiled(pattern).fullmatch(name) for name in names for pattern in patterns)
