"""From patterns to sites: roles, globs, regular expressions and names, with an error when nothing matches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from peftx.adapters.roles.vocabulary import expand, is_query
from peftx.adapters.site import Site
from peftx.errors import ConfigError, SelectionError, near_matches

__all__ = ["select_parameters", "select_sites"]

_LINEAR = frozenset({"linear", "linear_t", "packed_attention"})
_HEADS = frozenset({"head", "lm_head"})


def _is_glob(pattern: str) -> bool:
    # a bracket alone makes no glob: slices have them in their keys
    return any(mark in pattern for mark in ("*", "?", "[!"))


def _named(text: str, names: tuple[str, ...]) -> bool:
    return any(name == text or name.endswith(f".{text}") for name in names)


def _matcher(pattern: str) -> Callable[[Site], bool]:
    """The predicate a pattern stands for (see `peftx.config.adapter.AdapterConfig` for the grammar)."""
    prefix, colon, rest = pattern.partition(":")
    if colon and prefix == "role":
        accepts = expand(rest)
        return lambda site: accepts(site.role)
    if colon and prefix == "re":
        try:
            compiled = re.compile(rest)
        except re.error as error:
            raise ConfigError(
                f"{pattern!r} is not a regular expression: {error}; mend the pattern"
            ) from error
        return lambda site: compiled.fullmatch(site.key) is not None
    if colon and prefix == "glob":
        return lambda site: fnmatchcase(site.key, rest)
    if pattern == "all-linear":
        return lambda site: site.kind in _LINEAR and site.role not in _HEADS and not site.part
    if is_query(pattern):
        accepts = expand(pattern)
        return lambda site: accepts(site.role)
    if _is_glob(pattern):
        return lambda site: fnmatchcase(site.key, pattern)
    return lambda site: _named(pattern, (site.key,))


def _nothing(pattern: str, sites: Sequence[Site]) -> SelectionError:
    namesake = next((site.key for site in sites if _named(pattern, (site.key,))), None)
    if namesake is not None and is_query(pattern):
        return SelectionError(
            f"{pattern!r} is a role, and nothing in the model that could be taken has it; for {namesake}, which has "
            f"that name, write 're:{re.escape(namesake)}'"
        )
    # one spelling of a place is enough: numbered blocks all have the same names
    ends = {re.sub(r"^.*\.\d+\.", "", site.key) for site in sites}
    roles = {site.role for site in sites}
    parents = {role.partition(".")[0] for role in roles}
    known = sorted(roles | parents | ends | {end.rsplit(".", 1)[-1] for end in ends} | {"all-linear"})
    shown = ", ".join(sorted(roles)) or "none"
    return SelectionError(
        f"nothing in the model matches {pattern!r}.{near_matches(pattern, known)} Roles here: {shown}; a site can "
        "also be named by a glob, by re:REGEX or by the end of its name"
    )


def select_sites(
    sites: Sequence[Site],
    targets: Iterable[str],
    exclude: Iterable[str],
    kinds: Iterable[str],
    *,
    strict: bool,
    method: str,
) -> list[Site]:
    """The sites that `targets` name, without those of `exclude`, of the kinds a method can adapt.

    A fused projection is taken whole when a target names the whole, else by the slices named; excluding a slice of
    a whole leaves its other slices. With `strict` every pattern must match something; otherwise one must.

    Raises:
        SelectionError: nothing matched, or only sites of kinds the method cannot adapt.
    """
    able = set(kinds)
    usable = [site for site in sites if site.kind in able]
    chosen: dict[str, Site] = {}
    patterns = list(targets)
    unmatched: list[str] = []
    for pattern in patterns:
        matches = _matcher(pattern)
        hits = [site for site in usable if matches(site)]
        if not hits:
            other = [site for site in sites if matches(site)]
            if other and strict:
                raise SelectionError(
                    f"{pattern!r} matches only sites of kind {', '.join(sorted({site.kind for site in other}))} "
                    f"(such as {other[0].key}), which {method} cannot adapt; it adapts {', '.join(sorted(able))}"
                )
            unmatched.append(pattern)
        chosen.update((site.key, site) for site in hits)
    if unmatched and (strict or len(unmatched) == len(patterns)):
        raise _nothing(unmatched[0], usable or sites)
    return _whole_or_slices(list(chosen.values()), usable, [_matcher(pattern) for pattern in exclude])


def _whole_or_slices(
    chosen: list[Site], usable: Sequence[Site], excluded: list[Callable[[Site], bool]]
) -> list[Site]:
    def out(site: Site) -> bool:
        return any(matches(site) for matches in excluded)

    whole = {(site.module, site.weight) for site in chosen if not site.part}
    parts: dict[tuple[str, str], list[Site]] = {}
    for site in usable:
        if site.part:
            parts.setdefault((site.module, site.weight), []).append(site)
    kept: dict[str, Site] = {}
    for site in chosen:
        if out(site) or (site.part and (site.module, site.weight) in whole):
            continue
        slices = parts.get((site.module, site.weight), [])
        if not site.part and any(out(s) for s in slices):
            kept.update((s.key, s) for s in slices if not out(s))
        else:
            kept[site.key] = site
    return list(kept.values())


def select_parameters(
    sites: Sequence[Site], patterns: Iterable[str], exclude: Iterable[str], *, strict: bool
) -> list[Site]:
    """Parameter sites named by patterns; a pattern may also name the module that holds them.

    Where there are slices of a bias, the whole and its slices go by the rule of `select_sites`.

    Raises:
        SelectionError: with `strict`, a pattern that matches nothing.
    """
    chosen: dict[str, Site] = {}
    for pattern in patterns:
        matches = _either(pattern)
        hits = [site for site in sites if matches(site)]
        if not hits and strict:
            raise _nothing(pattern, sites)
        chosen.update((site.key, site) for site in hits)
    return _whole_or_slices(list(chosen.values()), sites, [_either(pattern) for pattern in exclude])


def _either(pattern: str) -> Callable[[Site], bool]:
    matches = _matcher(pattern)
    bare = ":" not in pattern and not is_query(pattern) and not _is_glob(pattern)

    def accept(site: Site) -> bool:
        if matches(site):
            return True
        if bare:  # `classifier` names every parameter below that module
            parts = site.module.split(".")
            paths = tuple(".".join(parts[: i + 1]) for i in range(len(parts)))
            return any(_named(pattern, (path,)) for path in paths)
        return False

    return accept
