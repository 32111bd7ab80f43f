"""Handles on the frozen layer below a delta: its weight, its bias, and the operation it performs.

A `Delta` never touches a module. It is given a `Base`: `base.weight` and `base.bias` in canonical layout,
`base(x)` for the layer's own output and `base.run(x, weight, bias)` for the same operation with other weights.
`Chained` puts one adapter's deltas on another's, so several adapters compose without knowing of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from peftx.errors import AdapterError

if TYPE_CHECKING:
    from peftx.adapters.delta import Delta

__all__ = [
    "Base",
    "Chained",
    "Rows",
    "apply",
    "effective_pair",
    "from_canonical",
    "root_base",
    "to_canonical",
]

_TRANSPOSED = frozenset({"linear_t", "embedding"})


def to_canonical(kind: str, weight: Tensor) -> Tensor:
    """View a stored weight as (out, in[, k...]); a transposed view for Conv1D and embedding tables."""
    return weight.t() if kind in _TRANSPOSED else weight


def from_canonical(kind: str, weight: Tensor) -> Tensor:
    """The inverse of `to_canonical`."""
    return weight.t() if kind in _TRANSPOSED else weight


class Base:
    """A layer as a delta sees it.

    Shapes: weight (out, in[, k...]), bias (out,) or None. Features stand last for linear layers and embeddings,
    in dimension 1 for convolutions.
    """

    kind: str = "linear"
    #: weight and bias are the stored parameters themselves, so a fused operation may read them
    raw: bool = True
    #: prefer computing this layer's input again in the backward to keeping it
    recompute: bool = False

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module

    @property
    def weight(self) -> Tensor:
        """The frozen weight, canonical."""
        return self.module._parameters["weight"]

    @property
    def bias(self) -> Tensor | None:
        """The frozen bias."""
        return self.module._parameters["bias"]

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer's operation with the weights given."""
        return F.linear(x, weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        return self.run(x, self.weight, self.bias)


class LinearTBase(Base):
    """transformers' Conv1D: y = x W + b with W stored (in, out)."""

    kind = "linear_t"

    @property
    def weight(self) -> Tensor:
        return self.module._parameters["weight"].t()


class ConvBase(Base):
    """nn.Conv1d and nn.Conv2d, whatever their stride, padding mode, dilation and groups."""

    kind = "conv"

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.module._conv_forward(x, weight, bias)


class EmbeddingBase(Base):
    """nn.Embedding: x holds indices; canonical weight is (width, vocabulary)."""

    kind = "embedding"

    @property
    def weight(self) -> Tensor:
        return self.module._parameters["weight"].t()

    @property
    def bias(self) -> None:
        return None

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        module = self.module
        return F.embedding(
            x,
            weight.t(),
            module.padding_idx,
            module.max_norm,
            module.norm_type,
            module.scale_grad_by_freq,
            # a sparse gradient cannot pass through the transposed view of a table; the frozen table needs none
            False,
        )


class CastingLinearBase(Base):
    """openai-whisper's Linear, which casts its float32 weights to the input's dtype at every call."""

    kind = "linear"

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


def root_base(cls: type) -> type[Base] | None:
    """Which handle reproduces a module class's forward exactly, or None when it computes something else.

    A subclass that overrides forward (a quantised layer, a scaled embedding) is never second-guessed: its own code
    runs and reads the effective weight.
    """
    forward, name = getattr(cls, "forward", None), f"{cls.__module__}.{cls.__qualname__}"
    if forward is nn.Linear.forward:
        return Base
    if forward is nn.Embedding.forward:
        return EmbeddingBase
    if forward in (nn.Conv1d.forward, nn.Conv2d.forward):
        return ConvBase
    if name == "transformers.pytorch_utils.Conv1D":
        return LinearTBase
    if name == "whisper.model.Linear":
        return CastingLinearBase
    return None


class Rows(Base):
    """Rows start..stop of a linear layer, for one slice of a fused projection."""

    def __init__(self, base: Base, start: int, stop: int) -> None:
        self.base, self.start, self.stop = base, start, stop
        self.kind, self.raw, self.recompute = base.kind, base.raw, base.recompute

    @property
    def weight(self) -> Tensor:
        return self.base.weight[self.start : self.stop]

    @property
    def bias(self) -> Tensor | None:
        bias = self.base.bias
        return None if bias is None else bias[self.start : self.stop]

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.base.run(x, weight, bias)


class Chained(Base):
    """A base that already carries deltas: the weight below the next adapter is the effective one."""

    raw = False

    def __init__(self, deltas: Sequence[Delta], base: Base) -> None:
        self.deltas, self.base = deltas, base
        self.kind, self.recompute = base.kind, base.recompute
        self._values: tuple[Tensor, Tensor | None] | None = None

    def _effective(self) -> tuple[Tensor, Tensor | None]:
        if self._values is None:
            weight, bias = self.base.weight, self.base.bias
            for delta in self.deltas:
                weight, bias = effective_rows(delta, weight, bias)
            self._values = weight, bias
        return self._values

    @property
    def weight(self) -> Tensor:
        return self._effective()[0]

    @property
    def bias(self) -> Tensor | None:
        return self._effective()[1]

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.base.run(x, weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        return apply(self.deltas, x, self.base)


def effective_pair(delta: Delta, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """What a delta's `effective` returns, told apart from what torch would only stumble over later.

    Raises:
        AdapterError: it is no pair, or its weight has another shape than the site's.
    """
    made = delta.effective(weight, bias)
    if not (isinstance(made, tuple) and len(made) == 2):
        raise AdapterError(
            f"{type(delta).__name__}.effective at {delta.site.key} returned a {type(made).__name__}, expected the pair "
            "(weight, bias)"
        )
    if made[0].shape != weight.shape:
        raise AdapterError(
            f"{type(delta).__name__}.effective at {delta.site.key} returned a weight of shape {tuple(made[0].shape)}, "
            f"expected {tuple(weight.shape)}, as it was given"
        )
    return made


def effective_rows(delta: Delta, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A delta's effective weight and bias, put back among the rows it does not cover."""
    rows = delta.site.rows
    if rows is None:
        return effective_pair(delta, weight, bias)
    start, stop = rows
    part = None if bias is None else bias[start:stop]
    if delta.site.weight == "bias":  # a slice of a bias is no reason to copy the weight
        own_bias = effective_pair(delta, weight, part)[1]
    else:
        own_weight, own_bias = effective_pair(delta, weight[start:stop], part)
        weight = torch.cat((weight[:start], own_weight, weight[stop:]))
    if bias is not None and own_bias is not None and own_bias is not part:
        bias = torch.cat((bias[:start], own_bias, bias[stop:]))
    return weight, bias


def apply(deltas: Sequence[Delta], x: Tensor, base: Base) -> Tensor:
    """Output of a layer under one or more deltas, in order.

    One delta owns the product outright. Slices of one fused projection go to their class together, so that it can
    share the base product among them; anything else is chained.
    """
    if len(deltas) == 1 and deltas[0].site.rows is None:
        return deltas[0](x, base)
    head, last = deltas[:-1], deltas[-1]
    if last.site.rows is None:
        return last(x, Chained(head, base) if head else base)
    cut = len(deltas)
    while cut and deltas[cut - 1].site.rows is not None and type(deltas[cut - 1]) is type(last):
        if any(_overlap(deltas[cut - 1], later) for later in deltas[cut:]):
            break
        cut -= 1
    below = Chained(deltas[:cut], base) if cut else base
    return last.forward_rows(deltas[cut:], x, below)


def _overlap(one: Delta, other: Delta) -> bool:
    (a, b), (c, d) = one.site.rows or (0, 0), other.site.rows or (0, 0)
    return a < d and c < b
