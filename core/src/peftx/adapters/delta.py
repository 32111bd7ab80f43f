"""`Delta`, one site's update, and `Owned`, an adapter's own copy of a base parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from peftx.adapters.base import Base, Rows, effective_pair, to_canonical
from peftx.adapters.site import Site
from peftx.errors import AdapterError

if TYPE_CHECKING:
    from peftx.config.adapter import AdapterConfig
    from peftx_kernels import Groups

__all__ = ["Delta", "Owned", "Statistic", "grouping"]

_REQUIRED: Any = object()


class Delta(nn.Module):
    """The update of one site. Subclasses hold its parameters and implement `effective`.

    Contract: ``effective(weight, bias) -> (weight', bias')`` in canonical layout, (out, in[, k...]) and (out,) or
    None, differentiable, additive or not. It must not write to what it is given. `forward` may be overridden to
    own the product; it must equal ``base.run(x, *effective(base.weight, base.bias))`` in evaluation mode.

    Args of a subclass's constructor: the site, the method's config, and the frozen weight and bias of the site in
    canonical layout (read them, never keep them: keeping them would copy the base into the adapter); then the bank, of
    a method that has one.
    """

    #: `effective` may return another bias; when False, reading the bias never computes the weight
    changes_bias: ClassVar[bool] = False
    #: the update depends on the input or on the context: there is a `forward`, and no `effective`
    routed: ClassVar[bool] = False
    #: parameters whose shape training may change (`ParamStore.replace`): loading gives them the shape that was saved
    elastic: ClassVar[tuple[str, ...]] = ()
    #: name and version of the form an adapter folder holds, where that is another than the one that is trained; of the
    #: class, or set by the constructor. With `pack` and `unpack`, whose contract is `peftx.adapters.packing.Packer`'s
    packing: str = ""

    def __init__(self, site: Site, bank: nn.Module | None = None) -> None:
        super().__init__()
        self.site = site
        # not a child: what sites share is held, moved and saved once, at the root
        self.__dict__["bank"] = bank

    @property
    def merges(self) -> bool:
        """Whether the update can be written into the weights."""
        return not self.routed

    def context(self, name: str, default: Any = _REQUIRED) -> Any:
        """Side information of this forward, entered by ``adapted.context(name=...)``.

        Per-sample values have one row a sample; in a batch that is partitioned among adapters they are the rows of the
        samples at hand.

        Raises:
            AdapterError: there is none of that name, and no default.
        """
        board = self.__dict__.get("_board")
        values = {} if board is None else board.current.context
        if name in values:
            return values[name]
        if default is _REQUIRED:
            raise AdapterError(
                f"the adapter at {self.site.key} needs the context {name!r} of every forward: run the model inside "
                f"`with adapted.context({name}=...)`"
            )
        return default

    def per_sample(self, value: Tensor, x: Tensor) -> Tensor:
        """Spread what has one row a sample, (B, ...), over an input of the site, so that the two broadcast.

        The input is features last: (B, T, D), (B, D), (T, B, D) where the model puts positions first, or with several
        contiguous rows a sample (windows, frames). The result has one row for each row of the input and 1 for its
        other dimensions but the last, then what `value` has after B: (B, E) beside (4 B, T, D) gives (4 B, 1, E).

        Raises:
            AdapterError: the rows of the input are no multiple of B.
        """
        dim = self.site.batch_dim
        rows = x.shape[dim] if x.dim() > dim + 1 else 0
        if not rows or rows % value.shape[0]:
            raise AdapterError(
                f"{self.site.key} was given an input of shape {tuple(x.shape)}, whose dimension {dim} holds no whole "
                f"number of rows for each of {value.shape[0]} samples; give the context one row per sample of the batch"
            )
        if rows > value.shape[0]:
            value = value.repeat_interleave(rows // value.shape[0], 0)
        leading = [rows if at == dim else 1 for at in range(x.dim() - 1)]
        return value.reshape(*leading, *value.shape[1:])

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The weight and bias the adapted layer has, canonical layout."""
        if self.routed:
            raise AdapterError(
                f"the update at {self.site.key} depends on the input, so there is no weight it makes; it can be run, "
                "not read or merged"
            )
        raise NotImplementedError(f"{type(self).__name__} must implement effective(weight, bias)")

    def forward(self, x: Tensor, base: Base) -> Tensor:
        """The adapted layer's output; by default the layer's own operation with the effective weights."""
        return base.run(x, *effective_pair(self, base.weight, base.bias))

    def forward_rows(self, deltas: Sequence[Delta], x: Tensor, base: Base) -> Tensor:
        """Output of a fused linear layer whose disjoint row blocks are adapted by `deltas` (same class as self).

        The general form computes each block on its own and joins them; a class that can share the base product
        overrides this.
        """
        out = base.weight.shape[0]
        pieces: list[Tensor] = []
        at = 0
        for delta in sorted(deltas, key=lambda d: d.site.rows or (0, 0)):
            start, stop = delta.site.rows or (0, out)
            if at < start:
                pieces.append(Rows(base, at, start)(x))
            pieces.append(delta(x, Rows(base, start, stop)))
            at = stop
        if at < out:
            pieces.append(Rows(base, at, out)(x))
        return torch.cat(pieces, dim=-1)

    @classmethod
    def grouped(
        cls, deltas: Sequence[Sequence[Delta]], groups: Groups, x: Tensor, base: Base
    ) -> Tensor | None:
        """Output of a layer for a batch whose samples go through several adapters, or None: each part on its own.

        A class that can share the base product among adapters overrides this. It then stands for the `forward`,
        `forward_rows` and `effective` it inherits or defines; a subclass that overrides one of those is computed part
        by part until it overrides this, too.

        Args:
            deltas: those of each group, in order: none where its samples run the base. All take this method from the
                same class.
            groups: of the rows of x, flattened.
            x: the whole batch, features last.
            base: the layer.
        """
        return None

    @staticmethod
    def rank_of(site: Site, config: Any) -> int | None:
        """The rank that the form of the update limits a site's update to; None for one of any rank."""
        return None

    def rank_factors(self) -> tuple[Tensor, Tensor] | None:
        """(B, A) with delta W = B A when the update is low-rank and additive, else None. Scale folded in."""
        return None

    def sparse(self) -> tuple[Tensor, Tensor] | None:
        """(flat indices, values) when the update is sparse and additive, else None."""
        return None

    def pack(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What an adapter folder holds of a state (`state_dict`, by slot); asked for where `packing` is not empty."""
        raise NotImplementedError(
            f"{type(self).__name__} has the packing {self.packing!r} and must implement pack"
        )

    def unpack(self, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state that computes the same bits as the one that was packed.

        Raises:
            ArtifactError: the values are none that `pack` writes; slots, dtypes and shapes were checked before.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has the packing {self.packing!r} and must implement unpack"
        )

    @staticmethod
    def parameter_dtype(dtype: torch.dtype) -> torch.dtype:
        """Trained parameters are kept at least in float32, whatever the base's precision."""
        return torch.promote_types(dtype, torch.float32)


def grouping(cls: type[Delta]) -> Any:
    """The class from which a delta's class takes `Delta.grouped`; None where that does not speak for its product."""
    for one in cls.__mro__:
        if "grouped" in one.__dict__:
            return None if one is Delta else one
        if not one.__dict__.keys().isdisjoint(("effective", "forward", "forward_rows")):
            return None
    return None


class Owned(Delta):
    """An adapter's own copy of one base parameter: a head's weight, a bias, a class token.

    Equation: ``weight' = value`` (``bias' = value`` when the site is a layer's bias). It starts as the base value,
    so the model is unchanged until it is trained; it is saved with its adapter, and the base stays as it was. The
    value keeps the layout of the module, not the canonical one, so that tied parameters can share one copy. Of a
    slice of a fused bias it holds the slice's rows alone, so no optimizer ever sees the others.
    """

    def __init__(self, site: Site, value: Tensor | nn.Parameter) -> None:
        super().__init__(site)
        if not isinstance(value, nn.Parameter) or not value.requires_grad:
            value = nn.Parameter(value.detach().to(self.parameter_dtype(value.dtype), copy=True))
        self.value = value

    def current(self) -> Tensor:
        """The value as it acts; a subclass that trains it under a constraint (of few bits, say) overrides this."""
        return self.value

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        value = self.current()
        if self.site.weight == "bias":
            return weight, value if bias is None else value.to(bias.dtype)
        return to_canonical(self.site.kind, value.to(weight.dtype)), bias

    def forward_rows(self, deltas: Sequence[Delta], x: Tensor, base: Base) -> Tensor:
        """Slices of a bias leave the product whole: it is the base's own, with the bias put together."""
        bias = base.bias
        if bias is None or any(delta.site.weight != "bias" for delta in deltas):
            return super().forward_rows(deltas, x, base)
        weight, at = base.weight, 0
        pieces: list[Tensor] = []
        for delta in sorted(deltas, key=lambda d: d.site.rows or (0, 0)):
            start, stop = delta.site.rows or (0, bias.shape[0])
            own = delta.effective(weight, bias[start:stop])[1]
            pieces += [bias[at:start], bias[start:stop] if own is None else own]
            at = stop
        return base.run(x, weight, torch.cat((*pieces, bias[at:])))

    @staticmethod
    def param_count(site: Site, config: AdapterConfig | None = None) -> int:
        """As many as the parameter has."""
        return site.numel


class Statistic(Delta):
    """An adapter's own copy of one running statistic, which its layer updates in place while it trains.

    An adapter whose trunk is in training mode moves batch-norm statistics; owning them keeps the base as it was and
    stores them with the adapter.
    """

    value: Tensor

    def __init__(self, site: Site, value: Tensor) -> None:
        super().__init__(site)
        self.register_buffer("value", value.detach().clone())

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.value, bias
