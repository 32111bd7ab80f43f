"""Finds plugins in installed metadata and loads each on its own, so that one broken plugin stays one broken
plugin.

The order: scan entry points -> drop blocked ones -> find domains claimed twice -> import -> API number ->
hooks, names and targets. pluggy's own entry-point loader is not used because it stops at the first failure.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import sys
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Literal

from peftx.plugins import api, builtin
from peftx.plugins.descriptors import KernelSpec
from peftx.plugins.targets import one_line
from peftx.plugins.validation import DOMAIN, Contribution, InvalidPluginError, collect

CORE = "core"

Status = Literal["ok", "broken", "conflict", "blocked", "api"]


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """One plugin as `peftx plugins` shows it.

    `api` is the number it states, `declared_api` whether it states one; `trace` the traceback of a failed
    import; `seconds` the time its import and its declaring hooks took; `imports_torch` whether that pulled
    torch in; `warnings` are complaints that do not stop it.
    """

    domain: str
    distribution: str
    version: str
    status: Status = "ok"
    cause: str = ""
    seconds: float = 0.0
    imports_torch: bool = False
    api: int | None = None
    declared_api: bool = True
    module: str = ""
    warnings: tuple[str, ...] = ()
    trace: str = ""

    @property
    def label(self) -> str:
        """``"distribution version"``."""
        return f"{self.distribution} {self.version}".strip()

    @property
    def slow(self) -> bool:
        """Whether its import took more than a second."""
        return self.seconds > api.SLOW_SECONDS


@dataclass(frozen=True, slots=True)
class Loaded:
    """A plugin's card, with its module and declarations when it is sound."""

    info: PluginInfo
    module: ModuleType | None = None
    contribution: Contribution | None = None


@dataclass(frozen=True, slots=True)
class Blocking:
    """Which plugins may not load: `disabled` by domain or distribution (``all`` for every one), or everything
    that is not in `only`. `source` names where each came from, for the message."""

    disabled: dict[str, str]
    only: frozenset[str] | None = None

    def reason(self, domain: str, distribution: str) -> str:
        """Why this plugin may not load, or an empty string."""
        keys = (_normal(domain), _normal(distribution))
        for key in (*keys, "all"):
            if key in self.disabled:
                return f"switched off by {self.disabled[key]}"
        if self.only is not None and not self.only.intersection(keys):
            return f"not in {api.ENV_ONLY}"
        return ""


def blocking(
    disabled: Collection[str], only: Collection[str] | None, environment: dict[str, str]
) -> Blocking:
    """Combine arguments with the environment; arguments come first for `only`, both count for `disabled`."""
    table = {_normal(name): api.ENV_DISABLE for name in _names(environment.get(api.ENV_DISABLE, ""))}
    table |= {_normal(name): "--no-plugin" for name in disabled}
    if only is None and api.ENV_ONLY in environment:
        only = _names(environment[api.ENV_ONLY])
    return Blocking(table, None if only is None else frozenset(map(_normal, only)))


def load_all(
    block: Blocking, entry_points: Iterable[importlib.metadata.EntryPoint] | None = None
) -> list[Loaded]:
    """Load core's own plugin and every installed one, core first, the rest by domain and distribution."""
    if entry_points is None:
        entry_points = importlib.metadata.entry_points(group=api.ENTRY_POINT_GROUP)
    found = sorted(((_card(point), point) for point in entry_points), key=lambda pair: _order(pair[0]))
    cards = [_blocked(block, card) for card, _ in found]
    claims: dict[str, list[PluginInfo]] = {}
    for card in cards:
        if card.status == "ok":
            claims.setdefault(card.domain, []).append(card)
    loaded = [_core()]
    for card, (_, point) in zip(cards, found, strict=True):
        cause = _conflict(card, claims.get(card.domain, []))
        if card.status != "ok":
            loaded.append(Loaded(card))
        elif cause:
            loaded.append(Loaded(replace(card, status="conflict", cause=cause)))
        else:
            loaded.append(_load(card, point))
    return loaded


def _load(card: PluginInfo, point: importlib.metadata.EntryPoint) -> Loaded:
    had_torch = "torch" in sys.modules
    start = time.perf_counter()
    module: ModuleType | None = None
    contribution: Contribution | None = None
    try:
        # A plugin that prints while it is imported must not spoil `--json` on stdout.
        with contextlib.redirect_stdout(sys.stderr):
            module = point.load()
            card = _check_module(card, module)
            if card.status == "ok":
                contribution = collect(module, card.domain)
                _forward_kernels(contribution)
    except InvalidPluginError as error:
        card = replace(card, status="broken", cause=str(error))
    except (Exception, SystemExit) as error:
        import traceback

        card = replace(card, status="broken", cause=_import_cause(error), trace=traceback.format_exc())
    card = replace(
        card, seconds=time.perf_counter() - start, imports_torch=not had_torch and "torch" in sys.modules
    )
    return Loaded(card, module if contribution else None, contribution)


def _forward_kernels(contribution: Contribution) -> None:
    """Enter a plugin's kernels in the kernels' own table, which keeps their targets as strings. Most plugins
    have none, and then the kernels are not even imported."""
    specs = contribution.of(KernelSpec)
    if not specs:
        return
    from peftx_kernels.table import KernelError, register

    for spec in specs:
        try:
            register(spec.op, spec.name, spec.target)
        except KernelError as error:
            raise InvalidPluginError(f"kernel {spec.name}: {error}") from error


def _check_module(card: PluginInfo, module: object) -> PluginInfo:
    """Return `card` with the API number; status ``api`` when the plugin is too new for this core."""
    if not isinstance(module, ModuleType):
        raise InvalidPluginError(f"entry point {card.module!r} names a {type(module).__name__}, not a module")
    if not DOMAIN.fullmatch(card.domain):
        raise InvalidPluginError(
            f"entry-point name {card.domain!r} is not a domain: use lower case, digits and _"
        )
    number = getattr(module, "PEFTX_API", None)
    card = replace(card, declared_api=number is not None)
    if number is None:
        number = 1
        card = replace(card, warnings=(f"states no PEFTX_API, taken as {number}",))
    if not isinstance(number, int) or isinstance(number, bool):
        raise InvalidPluginError(f"PEFTX_API must be a whole number, it is {number!r}")
    card = replace(card, api=number)
    if number > api.PLUGIN_API:
        cause = f"built for plugin API {number}, this peftx has {api.PLUGIN_API}; upgrade peftx"
        return replace(card, status="api", cause=cause)
    if number < api.PLUGIN_API:
        older = f"built for plugin API {number}, this peftx has {api.PLUGIN_API}; update {card.distribution}"
        card = replace(card, warnings=(*card.warnings, older))
    return card


def _core() -> Loaded:
    info = PluginInfo(CORE, "peftx", _core_version(), api=builtin.PEFTX_API, module="peftx.plugins.builtin")
    return Loaded(info, builtin, collect(builtin, CORE))


def _core_version() -> str:
    from peftx import __version__

    return __version__


def _card(point: importlib.metadata.EntryPoint) -> PluginInfo:
    name = version = "?"
    # A half-removed distribution has entry points and no metadata; it must not take the tool down.
    with contextlib.suppress(Exception):
        if point.dist is not None:
            name, version = point.dist.name or "?", point.dist.version or "?"
    return PluginInfo(point.name, name, version, module=point.value)


def _order(card: PluginInfo) -> tuple[str, str]:
    return card.domain, card.distribution


def _blocked(block: Blocking, card: PluginInfo) -> PluginInfo:
    reason = block.reason(card.domain, card.distribution)
    return replace(card, status="blocked", cause=reason) if reason else card


def _conflict(card: PluginInfo, claimants: list[PluginInfo]) -> str:
    if card.domain == CORE:
        return "domain core belongs to peftx itself"
    if len(claimants) < 2:
        return ""
    names = ", ".join(other.label for other in claimants)
    return (
        f"domain {card.domain} is claimed by {names}; uninstall one, or choose with --no-plugin DISTRIBUTION"
    )


def _import_cause(error: BaseException) -> str:
    cause = one_line(error)
    if isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "peftx":
        cause += f" (this peftx is {_core_version()}; the plugin was built for another one)"
    return cause


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
