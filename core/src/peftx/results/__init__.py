"""Results: the index over run folders, and what is asked of it: listing, comparing, ranking. Torch-free."""

from __future__ import annotations

from peftx.results.boards import boards
from peftx.results.comparing import Comparison, compare
from peftx.results.index import Entry, Index, default_root, register
from peftx.results.scanning import Skipped

__all__ = ["Comparison", "Entry", "Index", "Skipped", "boards", "compare", "default_root", "register"]
