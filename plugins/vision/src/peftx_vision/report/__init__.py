"""The panels of the vision pack on the page of a run. Torch-free: they read what a run leaves in its folder."""

from __future__ import annotations

from peftx_vision.report.classes import Confusion, confusion
from peftx_vision.report.pictures import pictures

__all__ = ["Confusion", "confusion", "pictures"]
