"""Laws of what a method says of itself: its configuration, its counts, its kinds of sites."""

from __future__ import annotations

import json
from typing import Any

import peftx
from peftx.adapters.site import KINDS
from peftx.config.adapter import AdapterConfig
from peftx.errors import ConfigError, PeftxError, SelectionError
from peftx.testing.cases import CASES
from peftx.testing.lawbook import LawError, NotApplicable, demand, law
from peftx.testing.laws.options import check_options
from peftx.testing.trial import Subject, Trial, refused

__all__ = ["config", "config_errors", "counts", "explain", "kinds"]


@law("method")
def config(subject: Subject) -> None:
    """The configuration imports no torch and survives JSON."""
    cls = subject.Config
    demand(
        isinstance(cls, type) and issubclass(cls, AdapterConfig),
        f"Config is {cls!r}, expected a subclass of AdapterConfig",
    )
    check_options(cls, lambda: cls(**subject.options), inherited=AdapterConfig.model_fields)


@law("method", needs=["config"])
def config_errors(subject: Subject) -> None:
    """A wrong option is one sentence that names it."""
    model = CASES[0].build()

    def with_(options: dict[str, Any]) -> Any:
        return lambda: peftx.explain(model, subject.given, **options)

    wrong: list[tuple[str, dict[str, Any]]] = [
        ("no_such_option", {"no_such_option": 1}),
        ("targets", {"targets": 7}),
        ("trunk", {"trunk": "sideways"}),
    ]
    for name, field in subject.Config.model_fields.items():
        if name not in AdapterConfig.model_fields and field.annotation in (int, float, bool, str):
            wrong.append((name, {name: ["neither", "number", "nor", "text"]}))
    for name, options in wrong:
        said = refused(ConfigError, f"{name} = {options[name]!r}", with_(options))
        demand(name in said, f"the error for {name} = {options[name]!r} does not name it: {said}")
        demand(
            "\n" not in said.strip(), f"the error for {name} = {options[name]!r} is not one sentence: {said}"
        )


@law("method")
def kinds(subject: Subject) -> None:
    """Every kind of site it claims is one it can adapt, and its needs name the same kinds."""
    claimed = tuple(subject.method.kinds)
    foreign = [kind for kind in claimed if kind not in KINDS]
    demand(
        not foreign,
        f"kinds names {foreign[0] if foreign else ''!r}, which is no kind of site: {', '.join(KINDS)}",
    )
    _needs_agree(subject, claimed)
    if not claimed:
        raise NotApplicable("it claims no kind of site; what it owns it finds by role")
    open_kinds, absent = {}, []
    for kind in claimed:
        outcome = _kind(subject, kind)
        if outcome is None:
            absent.append(kind)
        elif outcome:
            open_kinds[kind] = outcome
    for kind, reason in open_kinds.items():
        raise LawError(f"it claims {kind}, but on no case could such a site be adapted: {reason}")
    if absent:
        raise NotApplicable(f"no model here has a site of kind {', '.join(absent)} (a library is missing)")


def _needs_agree(subject: Subject, claimed: tuple[str, ...]) -> None:
    if not subject.registered:
        return
    from peftx.plugins import get_registry

    needs = get_registry().resolve_method(subject.given).spec.needs
    odd = sorted(set(needs.sites) ^ set(claimed))
    demand(
        not odd or (not needs.sites and not claimed),
        f"its descriptor needs the sites {', '.join(needs.sites) or 'of any kind'}, the class adapts "
        f"{', '.join(claimed) or 'none'}: {', '.join(odd)} differ",
    )


def _kind(subject: Subject, kind: str) -> str | None:
    """An empty string when some case has such a site adapted, why not when none, None when no case has one."""
    reason: str | None = None
    for case in CASES:
        if kind not in case.kinds or case.missing():
            continue
        trial = Trial(subject, case)
        # what the method targets by itself comes first, then everything it could adapt
        for options in case.candidates(subject.method, subject.options):
            try:
                rows = peftx.explain(case.build(), subject.given, **options).rows
            except SelectionError as error:
                reason = reason or f"{trial}: {error}"
                continue
            except PeftxError as error:
                reason = f"{trial}: {error}"
                continue
            if any(row.kind == kind and not row.owned for row in rows):
                return ""
            reason = reason or f"{trial}: no site of that kind is in its plan"
    return reason


@law("method", each_case=True)
def counts(trial: Trial) -> None:
    """The counts are those of the closed formula."""
    model = trial.build()
    promised = peftx.explain(model, trial.subject.given, **trial.options)
    adapted = trial.attach(model)
    found = adapted.counts()
    for what in ("adapter", "owned", "head", "trainable", "stored_bytes", "base_total"):
        said, is_ = getattr(promised.counts, what), getattr(found, what)
        demand(said == is_, f"explain promised {what} = {said:,}, attached it is {is_:,}")
    total = sum(p.numel() for p in adapted.parameters())
    demand(found.trainable == total, f"counts say {found.trainable:,} trained values, there are {total:,}")
    rows = {row.key: row.trained for row in adapted.explain().rows}
    for _, delta in trial.deltas(model):
        if delta.site.kind == "statistic":
            continue
        values = sum(delta.get_parameter(key).numel() for key in _trained(delta))
        said = rows[delta.site.key]
        demand(
            said == values,
            f"param_count says {said:,} trained values at {delta.site.key}, there are {values:,}",
        )


def _trained(delta: Any) -> list[str]:
    return [key for key, parameter in delta.named_parameters() if parameter.requires_grad]


@law("method", each_case=True)
def explain(trial: Trial) -> None:
    """`explain` tells what attaching would do, as text and as JSON, without attaching."""
    model = trial.build()
    keys = list(model.state_dict())
    explained = peftx.explain(model, trial.subject.given, **trial.options)
    demand(list(model.state_dict()) == keys, "explaining changed the model's state dict")
    demand(explained.rows, "it names no site")
    try:
        data = json.loads(json.dumps(explained.to_dict()))
    except (TypeError, ValueError) as error:
        raise LawError(f"the explanation cannot be written as JSON: {error}") from error
    demand(data["counts"]["trainable"] == explained.counts.trainable, "its JSON says something else")
    formula = trial.method.formula(list(trial.attach(model).attachment().plan), trial.config)
    demand(isinstance(formula, str) and "\n" not in formula, f"formula gave {formula!r}, expected one line")
    text = explained.render()
    demand(f"{explained.counts.trainable:,}" in text, "the text does not say how many values are trained")
    demand(
        all(row.key in explained.render(sites=True) for row in explained.rows), "a site is not in the text"
    )
