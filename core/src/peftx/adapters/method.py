"""`AdapterMethod`: what an adapter method is to the rest of peftx.

A method is a configuration, a choice of sites, and a `Delta` for each. Most methods only set three class
attributes; everything else (freezing, class swap, several adapters, saving, merging, counting) is done once, here
and in the rooms around.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from peftx.adapters.activations import activation_sites
from peftx.adapters.delta import Delta, Owned
from peftx.adapters.schedule import Schedule
from peftx.adapters.select import select_parameters, select_sites
from peftx.adapters.site import Site, SitePlan
from peftx.adapters.survey import norm_sites, parameter_sites, weight_sites
from peftx.config.adapter import AdapterConfig
from peftx.errors import ConfigError, SelectionError

__all__ = ["AdapterMethod", "is_chosen", "refuse_dropout"]


def is_chosen(config: AdapterConfig, field: str) -> bool:
    """Whether a field differs from its default: a user's own patterns must match, a default's may not."""
    return bool(
        getattr(config, field) != type(config).model_fields[field].get_default(call_default_factory=True)
    )


def refuse_dropout(plan: SitePlan, dropout: float) -> None:
    """Raise `ConfigError` where dropout on a layer's input is asked for and the layer's input is never seen."""
    for site in plan:
        if dropout and not site.product:
            raise ConfigError(
                f"dropout {dropout} cannot act on {site.key}: its weight is read without its layer being called "
                f"({site.kind}), so its input is never seen; use dropout 0 or exclude the site"
            )


def _trained_width(site: Site) -> int:
    return Delta.parameter_dtype(site.dtype).itemsize


class AdapterMethod:
    """Base of every adapter method.

    A subclass sets `Config`, `Delta` and `kinds`; `Delta` is called with (site, config, weight, bias) and must
    offer ``param_count(site, config)``, the closed formula of its trained values.
    """

    Config: ClassVar[type[AdapterConfig]] = AdapterConfig
    Delta: ClassVar[Any] = None
    #: site kinds the method can adapt (see `peftx.adapters.site.KINDS`)
    kinds: ClassVar[tuple[str, ...]] = ()
    #: tried in turn when the default targets match nothing: a convolutional network, then anything linear
    fallbacks: ClassVar[tuple[tuple[str, ...], ...]] = (("conv", "downsample"), ("all-linear",))
    #: how the adapted model relates to the base before training: equal to the last bit, equal but for rounding, or not
    starts_as: ClassVar[Literal["identity", "rounding", "shifted"]] = "identity"
    #: `effective` and `forward` read whole base weights, so a sharded base does not do; declared, not enforced yet
    needs_full_weight: ClassVar[bool] = False
    #: optimizer steps within which every trained tensor must have had a gradient that is not zero (a factor whose
    #: partner starts at zero has to wait for one step); checked by the conformance kit
    wakes_within: ClassVar[int] = 2
    #: what the backward pass needs of each token at a site, for `explain`: the layer's input, its output
    keeps_input: ClassVar[bool] = True
    keeps_output: ClassVar[bool] = False
    #: laws of the conformance kit known to fail, ``law`` or ``(law, case)`` -> why
    known_failures: ClassVar[Mapping[Any, str]] = {}

    def plan(self, model: nn.Module, config: Any) -> SitePlan:
        """The sites to adapt: those of `targets`, or of the `fallbacks` when the default targets match nothing.

        By its default targets a routed method takes only layers that are called, whose input it sees.

        Raises:
            SelectionError: a pattern matched nothing, or nothing this method can adapt.
        """
        owned = {(site.module, site.weight) for site in self.owned(model, config)}
        sites = weight_sites(model)
        if "norm" in self.kinds:
            sites = [*sites, *norm_sites(model)]
        if "activation" in self.kinds:
            sites = [*sites, *activation_sites(model)]
        strict = is_chosen(config, "targets")
        if getattr(self.Delta, "routed", False) and not strict:
            sites = [site for site in sites if site.product]
        refusal: SelectionError | None = None
        for targets in (config.targets, *(() if strict else self.fallbacks)):
            try:
                chosen = select_sites(
                    sites, targets, config.exclude, self.kinds, strict=strict, method=type(self).__name__
                )
            except SelectionError as error:
                refusal = refusal or error
                continue
            return SitePlan(tuple(site for site in chosen if (site.module, site.weight) not in owned))
        assert refusal is not None
        raise refusal

    def owned(self, model: nn.Module, config: Any) -> SitePlan:
        """The parameters the adapter owns whole: by default those of the heads in ``also_train``."""
        chosen = select_parameters(
            parameter_sites(model),
            config.also_train,
            config.exclude,
            strict=is_chosen(config, "also_train"),
        )
        return SitePlan(tuple(chosen))

    def check(self, plan: SitePlan, config: Any) -> None:
        """Refuse a configuration that cannot work on the sites chosen (raise `ConfigError`)."""

    def notes(self, plan: SitePlan, config: Any) -> list[str]:
        """What a user should know of a configuration that works: sentences, shown by `explain` and when attaching.

        By default, of a rank above the largest that a site's update can have, min(out, in): it trains more values and
        can do no more.
        """
        rank_of = getattr(self.Delta, "rank_of", None)
        if rank_of is None:
            return []
        above = [
            (site, rank)
            for site in plan
            if len(site.shape) > 1 and (rank := rank_of(site, config) or 0) > min(site.matrix)
        ]
        if not above:
            return []
        (site, rank), most = above[0], min(above[0][0].matrix)
        out, width = site.matrix
        more = f", and {len(above) - 1} more sites are such" if above[1:] else ""
        return [
            f"the rank {rank} is above what an update of {site.key}, a map of {width} to {out}, can have: {most} does "
            f"the same with fewer values{more}"
        ]

    def bank(self, plan: SitePlan, config: Any) -> nn.Module | None:
        """What all sites of one adapter share, made once from the whole plan, which has a site; None for nothing.

        Its parameters are trained, moved and saved once. Buffers that follow from the configuration (random bases made
        from a seed) are registered with ``persistent=False`` and so are not stored at all.
        """
        return None

    def buffer_bytes(self, site: Site, config: Any) -> int:
        """Bytes a site stores besides its trained values (indices, masks, budgets), by closed formula."""
        return 0

    def bank_count(self, plan: SitePlan, config: Any) -> int:
        """Trained values of the bank, by closed formula."""
        return 0

    def stored_bytes(self, site: Site, config: Any) -> int:
        """Bytes of an adapted site's tensors in an adapter folder, by closed formula.

        By default its trained values and what `buffer_bytes` says; a method with a `Delta.packing` overrides it.
        """
        return self.param_count(site, config) * _trained_width(site) + self.buffer_bytes(site, config)

    def owned_bytes(self, site: Site, config: Any) -> int:
        """As `stored_bytes`, of an owned parameter."""
        return self.owned_count(site, config) * _trained_width(site)

    def bank_bytes(self, plan: SitePlan, config: Any) -> int:
        """As `stored_bytes`, of the bank: by default its trained values in float32."""
        return self.bank_count(plan, config) * 4

    def build(
        self, site: Site, config: Any, weight: Tensor, bias: Tensor | None, bank: nn.Module | None = None
    ) -> Delta:
        """The delta of one site; weight and bias are the frozen ones, canonical layout.

        For an activation site there are none: weight is an empty tensor of the site's dtype.
        """
        if bank is None:
            return self.Delta(site, config, weight, bias)
        return self.Delta(site, config, weight, bias, bank)

    def own(self, site: Site, config: Any, value: Tensor | nn.Parameter) -> Owned:
        """The adapter's own copy of a base parameter (or of rows of a bias); overridden to hold it in another form.

        `value` is the base's, in the layout of the module; or a parameter that another site holds already, because the
        two are tied, and then it is to be held as it is.
        """
        return Owned(site, value)

    def owned_count(self, site: Site, config: Any) -> int:
        """Trained values of an owned parameter, by closed formula."""
        return site.numel

    def schedule(self, config: Any) -> Schedule | None:
        """What changes over the course of training; None for nothing but values."""
        return None

    def loss(self, config: Any, run: Callable[[], tuple[Tensor, Any]]) -> Tensor:
        """The loss of a training step; overridden by a method that adds a term, or looks at a batch twice.

        `run` is one forward on the batch: the task's mean loss, a scalar, and what the model returned. Each call of it
        draws anew what is random. `Adapted.loss` comes here; `peftx run` calls that in every step.
        """
        return run()[0]

    def param_count(self, site: Site, config: Any) -> int:
        """Trained values at a site, by closed formula."""
        return self.Delta.param_count(site, config)

    def context_example(self, config: Any, samples: int) -> dict[str, Tensor]:
        """Side information for a batch of `samples`, as `Adapted.context` takes it; {} when the method reads none.

        Per-sample values have first dimension `samples`. The conformance kit runs its laws inside it.
        """
        return {}

    def formula(self, sites: Sequence[Site], config: Any) -> str:
        """The closed formula as text, for `explain`; empty when a method states none."""
        return ""
