"""A configuration beside the mathematics."""

from __future__ import annotations

import torch  # noqa: F401

from peftx.config.adapter import AdapterConfig


class HeavyConfig(AdapterConfig):
    """No option of its own."""
