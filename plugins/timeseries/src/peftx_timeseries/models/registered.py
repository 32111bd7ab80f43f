"""The registered hosts, as core calls them: ``build(config, outputs) -> nn.Module``."""

from __future__ import annotations

from typing import Any

from torch import nn

from peftx_timeseries.models.hosts import folder_of_minilm, load_trunk, random_trunk

__all__ = ["minilm", "random"]


def random(config: Any, outputs: int | None) -> nn.Module:
    """A small GPT-2 with random weights."""
    return random_trunk(config.width, config.heads, config.blocks or 3)


def minilm(config: Any, outputs: int | None) -> nn.Module:
    """The six blocks of MiniLM-L6 (width 384), from the files of a package.

    Raises:
        ModelError: the package is not installed.
    """
    return load_trunk(folder_of_minilm(), blocks=config.blocks, pretrained=config.pretrained, offline=True)
