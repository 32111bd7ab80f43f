"""The vision pack of peftx. Everything it offers is declared in `peftx_vision.plugin`; this file only has the
version."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
