"""Data sets: their contract, one cache, checked downloads, safe archives, seeded splits, published counts.

No torch anywhere in this room, and numpy only inside functions: missing data must be found, and reported,
before anything heavy is imported.
"""

from __future__ import annotations

from peftx.data.contract import DataContext, Dataset, Published, Split, Subset
from peftx.data.copies import Copy, compare_copy

__all__ = ["Copy", "DataContext", "Dataset", "Published", "Split", "Subset", "compare_copy"]
