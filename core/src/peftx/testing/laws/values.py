"""Laws of what an adapter computes: how it starts, that it shows, that its forms agree."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from peftx.adapters.base import Base, Rows
from peftx.adapters.delta import Delta
from peftx.testing.lawbook import NotApplicable, demand, law
from peftx.testing.trial import Trial, far, near, perturb, scale_of, sites_of

__all__ = ["IDENTITY", "MERGED", "ROUNDING", "effect", "every_site", "forward", "merge", "starts_as"]

#: largest differences relative to the output's scale, in float32
IDENTITY, ROUNDING, MERGED = 1e-6, 1e-4, 1e-5


@law("method", each_case=True)
def starts_as(trial: Trial) -> None:
    """Before training the model computes what `starts_as` declares."""
    declared = trial.method.starts_as
    demand(
        declared in ("identity", "rounding", "shifted"),
        f"starts_as is {declared!r}, expected identity, rounding or shifted",
    )
    model = trial.build()
    before = trial.run(model)
    adapted = trial.attach(model)
    after = trial.run(model)
    if declared != "shifted":
        tolerance = IDENTITY if declared == "identity" else ROUNDING
        near(after, before, tolerance, f"declared {declared}, the adapted model and the base")
        return
    demand(torch.isfinite(after).all(), "the output holds values that are not finite")
    if len(adapted.attachment().plan):
        shift = far(after, before)
        demand(
            shift > IDENTITY * scale_of(before),
            f"declared shifted, but the output differs from the base's by {shift:.2g} only",
        )


_MODES: dict[str, type[AbstractContextManager[Any]]] = {
    "with gradients": nullcontext,
    "under no_grad": torch.no_grad,
    "in inference mode": torch.inference_mode,
}


def _outputs(trial: Trial, model: nn.Module, train: bool) -> dict[str, Tensor]:
    model.train(train)
    found: dict[str, Tensor] = {}
    for name, mode in _MODES.items():
        with mode():
            found[name] = trial.run(model).clone().detach()
    return found


@law("method", each_case=True)
def effect(trial: Trial) -> None:
    """Moving the adapter changes the output, in every mode and by the same amount."""
    model = trial.build()
    adapted = trial.attach(model)
    trial.bind(adapted)
    for train in (False, True):
        before = _outputs(trial, model, train)
        perturb(adapted.parameters(), seed=3 + train)
        after = _outputs(trial, model, train)
        mode = "training" if train else "evaluation"
        for name in _MODES:
            change = far(after[name], before[name])
            demand(
                change > 1e-3,
                f"in {mode} {name}, moving every parameter changed the output by {change:.2g}",
            )
            near(
                after[name],
                after["with gradients"],
                5e-5,
                f"in {mode}, the output {name} and with gradients",
            )


@law("method", each_case=True, needs=["effect"])
def every_site(trial: Trial) -> None:
    """Every site is visited and matters, unless its value cannot."""
    model = trial.build()
    adapted = trial.attach(model)
    unreached = adapted.reached(lambda: trial.run(model))
    demand(not unreached, f"no forward visits {', '.join(unreached[:3])}")
    perturb(adapted.parameters(), 0.1)  # of two factors, neither may rest at zero
    before = trial.run(model)
    tensors = adapted.tensors()
    for site in sites_of(adapted):
        own = [value for (key, _), value in tensors.items() if key == site.key and value.requires_grad]
        if not own or trial.inert(site.key):
            continue
        kept = [value.detach().clone() for value in own]
        perturb(own)
        change = far(trial.run(model), before)
        demand(change > 1e-5, f"moving the parameters at {site.key} changed the output by {change:.2g}")
        with torch.no_grad():
            for value, old in zip(own, kept, strict=True):
                value.copy_(old)


@law("method", each_case=True)
def forward(trial: Trial) -> None:
    """`forward` gives what the layer gives with the weights of `effective`, and so do its gradients."""
    model = trial.build()
    adapted = trial.attach(model)
    perturb(adapted.parameters())
    inputs: dict[int, Tensor] = {}
    hooks = []
    for module in {id(m): m for m, d in trial.deltas(model) if d.site.product}.values():
        hooks.append(
            module.register_forward_pre_hook(
                lambda m, args: inputs.__setitem__(id(m), args[0]) if len(args) == 1 else None
            )
        )
    trial.run(
        model
    )  # with gradients: without, torch may hand nested tensors around, which are nothing to compare
    for hook in hooks:
        hook.remove()
    judged = 0
    with trial.setting(model):
        for module, delta in trial.deltas(model):
            x, product = inputs.get(id(module)), getattr(type(module), "_peftx_product", None)
            if x is None or product is None or not _owns_product(delta):
                continue
            whole: Base = product(module)
            base = whole if delta.site.rows is None else Rows(whole, *delta.site.rows)
            padded = getattr(module, "padding_idx", None) is not None
            _one_forward(delta, x.detach(), base, gradients=not padded)
            judged += 1
    if not judged:
        raise NotApplicable("no delta here owns the product of a layer")


def _owns_product(delta: Delta) -> bool:
    return delta.merges and type(delta).forward is not Delta.forward


def _one_forward(delta: Delta, x: Tensor, base: Base, gradients: bool) -> None:
    parameters = [p for p in delta.parameters() if p.requires_grad]
    results = []
    for product in (True, False):
        leaf = x.clone().requires_grad_(x.is_floating_point())
        y = delta(leaf, base) if product else base.run(leaf, *delta.effective(base.weight, base.bias))
        torch.manual_seed(19)
        wanted = [*parameters, *([leaf] if leaf.requires_grad else [])]
        found = torch.autograd.grad((y * torch.randn(y.shape)).sum(), wanted, allow_unused=True)
        results.append((y, found))
    (y, grads), (z, wanted_grads) = results
    near(y, z, MERGED, f"at {delta.site.key}, forward and effective")
    if not gradients:
        return  # the padding row has no gradient by torch's rule, which a product of factors cannot know
    for one, other in zip(grads, wanted_grads, strict=True):
        if one is not None and other is not None:
            near(one, other, 1e-4, f"at {delta.site.key}, a gradient through forward and through effective")


@law("method", each_case=True, needs=["forward"])
def merge(trial: Trial) -> None:
    """The model with the effective weights written in computes what the adapted one does."""
    model = trial.build()
    adapted = trial.attach(model)
    trial.merges(model)
    perturb(adapted.parameters())
    unmerged = trial.run(model)
    written: list[tuple[nn.Module, str, Tensor]] = []
    modules = {id(module): module for module, _ in trial.deltas(model)}
    for module in modules.values():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                written.append((module, name, getattr(module, name).detach().clone()))
    adapted.detach()
    for module, name, value in written:
        own = module._parameters[name]
        assert own is not None
        demand(
            value.shape == own.shape,
            f"the effective {name} of {type(module).__name__} has shape {tuple(value.shape)}, the layer's own "
            f"{tuple(own.shape)}",
        )
        with torch.no_grad():
            own.copy_(value)
    near(trial.run(model), unmerged, MERGED, "the merged model and the adapted one")
