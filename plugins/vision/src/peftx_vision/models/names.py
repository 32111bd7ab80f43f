"""Which model names this pack understands beyond the registered ones. Torch-free: asked before torch is imported.

A name may say ``timm:`` in front; without it, anything that reads like a timm name is taken for one, and whether timm
has it is checked when it is built.
"""

from __future__ import annotations

import re

__all__ = ["PREFIX", "TIMM_CONFIG", "known", "timm_name"]

PREFIX = "timm:"
#: Options such models take.
TIMM_CONFIG = "peftx_vision.config.tasks:TimmConfig"

# architecture, and perhaps a tag after one dot: vit_tiny_patch16_224.augreg_in21k
_TIMM = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)?", re.ASCII)


def known(name: str) -> str | bool:
    """Return the config target of a timm-looking name (which is true), or False."""
    return TIMM_CONFIG if _TIMM.fullmatch(name.removeprefix(PREFIX)) else False


def timm_name(name: str) -> str:
    """Return `name` as timm spells it."""
    return name.removeprefix(PREFIX)
