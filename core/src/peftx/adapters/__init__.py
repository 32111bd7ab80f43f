"""The adapter algebra: sites, deltas, and attaching them to unmodified models.

It knows no data set, no training loop and no command line.
"""

from __future__ import annotations

from peftx.adapters.base import Base
from peftx.adapters.delta import Delta, Owned
from peftx.adapters.explanation import Counts, Explanation, explain
from peftx.adapters.handle import Adapted, adapted, attach
from peftx.adapters.method import AdapterMethod
from peftx.adapters.site import KINDS, Site, SitePlan

__all__ = [
    "KINDS",
    "Adapted",
    "AdapterMethod",
    "Base",
    "Counts",
    "Delta",
    "Explanation",
    "Owned",
    "Site",
    "SitePlan",
    "adapted",
    "attach",
    "explain",
]
