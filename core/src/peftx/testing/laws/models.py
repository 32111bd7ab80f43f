"""Laws of registered models: reproducible, a head of the width asked for, places that adapters find."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peftx.adapters.roles import head_of
from peftx.adapters.survey import parameter_sites, weight_sites
from peftx.testing.lawbook import NotApplicable, demand, law
from peftx.testing.laws.options import check_options
from peftx.testing.subjects import ModelSubject

__all__ = ["built", "head", "model_config", "parameters", "roles"]

OUTPUTS = 7


@law("model")
def model_config(subject: ModelSubject) -> None:
    """The configuration imports no torch, survives JSON, and describes its options."""
    if not subject.spec.config:
        raise NotApplicable("it has no options")
    check_options(subject.entry.load("config"), lambda: subject.config)


@law("model")
def built(subject: ModelSubject) -> None:
    """A build is a new model, the same bits for the same seed."""
    one, two = subject.build(OUTPUTS), subject.build(OUTPUTS)
    demand(isinstance(one, nn.Module), f"the build gave a {type(one).__name__}, expected a torch module")
    demand(one is not two, "the same model was given twice")
    first, second = one.state_dict(), two.state_dict()
    demand(list(first) == list(second), "two builds have different state-dict keys")
    demand(
        not {t.data_ptr() for t in first.values() if t.numel()}
        & {t.data_ptr() for t in second.values() if t.numel()},
        "two builds share parameters",
    )
    for key, value in first.items():
        demand(torch.equal(value, second[key]), f"from the same seed, {key} differs between two builds")


@law("model", needs=["built"])
def head(subject: ModelSubject) -> None:
    """The head has the width asked for and is known as the head."""
    if subject.spec.trunk:
        raise NotApplicable("it is a trunk, and its task brings the head")
    for outputs in (OUTPUTS, 3):
        model = subject.build(outputs)
        paths = head_of(model)
        demand(paths, "no role table knows its head; set `peftx_head` on the model to the path of its head")
        sites = [
            site
            for site in weight_sites(model)
            if any(site.module == path or site.module.startswith(f"{path}.") for path in paths)
        ]
        demand(sites, f"its head {', '.join(paths)} holds no layer")
        widths = {site.shape[0] for site in sites}
        demand(
            outputs in widths,
            f"asked for {outputs} outputs, the head {', '.join(paths)} gives {', '.join(map(str, sorted(widths)))}",
        )
    subject.build(None)


@law("model")
def parameters(subject: ModelSubject) -> None:
    """The number of parameters is the one its descriptor states."""
    if subject.spec.params is None:
        raise NotApplicable("its descriptor states no number")
    count = sum(p.numel() for p in subject.build(None).parameters())
    demand(count == subject.spec.params, f"it has {count:,}, its descriptor says {subject.spec.params:,}")


@law("model")
def roles(subject: ModelSubject) -> None:
    """Role tables find its places: what adapters target by default is there, most layers have a role."""
    model = subject.build(OUTPUTS)
    found: list[Any] = [site for site in weight_sites(model) if not site.part]
    demand(found, f"no site at all is found among its {len(parameter_sites(model))} parameters")
    roots = {site.role.partition(".")[0] for site in found}
    demand(
        roots & {"attention", "cross_attention", "mlp", "conv"},
        f"its layers have the roles {', '.join(sorted(roots))}: nothing that adapters target by default; register a "
        "role table",
    )
    other = [site.key for site in found if site.role == "other"]
    demand(
        2 * len(other) < len(found),
        f"{len(other)} of {len(found)} layers have no role ({', '.join(other[:3])}); register a role table",
    )
