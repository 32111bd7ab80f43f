"""The registry of this process, loaded once per choice of plugins."""

from __future__ import annotations

import os
from collections.abc import Collection

from peftx.plugins import api
from peftx.plugins.loader import blocking, load_all
from peftx.plugins.registry import Registry

_cache: dict[tuple[object, ...], Registry] = {}


def get_registry(disabled: Collection[str] = (), only: Collection[str] | None = None) -> Registry:
    """Return the registry of installed plugins, without those switched off.

    `disabled`: domains or distributions not to load, on top of ``PEFTX_DISABLE_PLUGINS``; `only`: load no
    others (default: ``PEFTX_PLUGINS`` when set). Cached; `forget` drops the cache.
    """
    environment = {name: os.environ[name] for name in (api.ENV_DISABLE, api.ENV_ONLY) if name in os.environ}
    key = (
        tuple(sorted(disabled)),
        None if only is None else tuple(sorted(only)),
        *sorted(environment.items()),
    )
    if key not in _cache:
        _cache[key] = Registry(load_all(blocking(disabled, only, environment)))
    return _cache[key]


def forget() -> None:
    """Drop cached registries (for tests that change what is installed)."""
    _cache.clear()
