"""The adapter algebra: sites, deltas, and attaching them to unmodified models.

It knows no data set, no training loop and no command line.
"""

from __future__ import annotations

from peftx.adapters.base import Base
from peftx.adapters.delta import Delta, Owned
from peftx.adapters.explanation import Counts, Explanation, explain
from peftx.adapters.handle import Adapted, adapted, attach
from peftx.adapters.insert import Insert
from peftx.adapters.method import AdapterMethod
from peftx.adapters.schedule import Schedule
from peftx.adapters.site import KINDS, Site, SitePlan
from peftx.adapters.store import ParamStore

__all__ = [
    "KINDS",
    "Adapted",
    "AdapterMethod",
    "Base",
    "Counts",
    "Delta",
    "Explanation",
    "Insert",
    "Owned",
    "ParamStore",
    "Schedule",
    "Site",
    "SitePlan",
    "adapted",
    "attach",
    "explain",
]
