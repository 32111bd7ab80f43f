"""Results: the index over run folders, and what is asked of it: listing, comparing, ranking. Torch-free."""

from __future__ import annotations
