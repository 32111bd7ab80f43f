"""The pack's benchmark suites. Torch-free: a suite is read by `peftx info`, too."""

from __future__ import annotations

from peftx_vision.suites.cifar import CIFAR
from peftx_vision.suites.fgvc import FGVC
from peftx_vision.suites.quick import QUICK
from peftx_vision.suites.vtab1k import VTAB1K

__all__ = ["CIFAR", "FGVC", "QUICK", "VTAB1K"]
