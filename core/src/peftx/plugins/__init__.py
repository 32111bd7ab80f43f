"""Plugins: what they declare (descriptors), how they are found and checked (loader), and who has what
(registry).

Nothing here imports torch. A plugin author needs `hookimpl` and the descriptors; a caller needs
`get_registry`.
"""

from __future__ import annotations

from peftx.plugins.api import PLUGIN_API
from peftx.plugins.catalogue import CATALOGUE, Pack
from peftx.plugins.descriptors import (
    CommandSpec,
    DatasetSpec,
    KernelSpec,
    MethodSpec,
    ModelSpec,
    Needs,
    Offers,
    PanelSpec,
    SuiteSpec,
    TaskSpec,
)
from peftx.plugins.hookspecs import hookimpl
from peftx.plugins.loader import PluginInfo
from peftx.plugins.manager import get_registry
from peftx.plugins.registry import Entry, Registry
from peftx.plugins.targets import load_target

__all__ = [
    "CATALOGUE",
    "PLUGIN_API",
    "CommandSpec",
    "DatasetSpec",
    "Entry",
    "KernelSpec",
    "MethodSpec",
    "ModelSpec",
    "Needs",
    "Offers",
    "Pack",
    "PanelSpec",
    "PluginInfo",
    "Registry",
    "SuiteSpec",
    "TaskSpec",
    "get_registry",
    "hookimpl",
    "load_target",
]
