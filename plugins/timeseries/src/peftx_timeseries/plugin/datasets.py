"""The data sets of the pack. Descriptors only: no torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import DatasetSpec, hookimpl

__all__ = ["peftx_datasets"]


@hookimpl
def peftx_datasets() -> Iterator[DatasetSpec]:
    """The data sets."""
    yield from ()
