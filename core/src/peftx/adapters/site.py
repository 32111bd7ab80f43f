"""Sites: the places of a model an adapter may change, and the ordered plan of those it does.

A site is one parameter of one module, or a block of its rows, seen in canonical layout: a matrix is (out, in)
whatever way the module stores it, so a method is written once for `nn.Linear`, for the transposed `Conv1D` of
transformers, for an embedding table (out = width, in = vocabulary) and for one slice of a fused projection.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

__all__ = ["KINDS", "Site", "SitePlan"]

KINDS = {
    "linear": "nn.Linear and its subclasses; weight (out, in)",
    "linear_t": "transformers' Conv1D: a linear layer whose weight is stored (in, out)",
    "conv1d": "nn.Conv1d; weight (out, in / groups, k)",
    "conv2d": "nn.Conv2d; weight (out, in / groups, k, k)",
    "embedding": "nn.Embedding; seen as (width, vocabulary)",
    "packed_attention": "a projection inside nn.MultiheadAttention, whose weight is read without calling a module",
    "norm": "a normalisation layer's weight or bias",
    "statistic": "a running statistic of a normalisation layer: moved by training, never trained",
    "activation": "the input or output of a whole attention, feed-forward network or block; shape (width,)",
    "parameter": "any other parameter: class token, position table, a bias, a layer scale",
}


@dataclass(frozen=True, slots=True)
class Site:
    """One adapted place.

    `shape` is canonical, (out, in[, k...]); for kinds ``norm`` and ``parameter`` it is the parameter's own.
    Of kind ``activation`` it is (width,) of what the module returns, and `weight` is empty.
    `rows` is the block of output rows a slice covers, or None for all of them. `label` names the site inside its
    module; (module, label) is unique.
    """

    key: str
    module: str
    kind: str
    role: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    weight: str
    bias: str | None = None
    rows: tuple[int, int] | None = None
    part: str = ""
    group: str = ""
    batch_dim: int = 0
    groups: int = 1
    #: the module's own forward is the textbook one, so that a delta may own the product
    product: bool = True
    #: path of the module that reads the weight without calling the site's module, if one does
    reader: str | None = None
    #: of an activation site: path of a module before it or within, whose input the insert reads
    read: str | None = None
    #: of an activation site: the dimension of its features
    channel_dim: int = -1

    @property
    def label(self) -> str:
        """The site's name inside its module: the parameter's name, with the slice's part."""
        name = f"{self.weight}_{self.part}" if self.part else self.weight or "insert"
        # a module's child cannot be called like a method of modules (a parameter named `values`, say)
        return f"{name}_" if hasattr(nn.ModuleDict, name) else name

    @property
    def matrix(self) -> tuple[int, int]:
        """(out, in) with a convolution's kernel folded into `in`."""
        return self.shape[0], math.prod(self.shape[1:])

    @property
    def numel(self) -> int:
        """Number of base values the site covers."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class SitePlan:
    """An immutable list of sites, sorted by key, so that no traversal order ever shows in a result."""

    sites: tuple[Site, ...] = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", tuple(sorted(self.sites, key=lambda site: site.key)))

    def __iter__(self) -> Iterator[Site]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)

    def __add__(self, other: SitePlan) -> SitePlan:
        return SitePlan(self.sites + other.sites)

    @property
    def keys(self) -> tuple[str, ...]:
        """The site keys, in order."""
        return tuple(site.key for site in self.sites)
