"""Reports: how results are shown."""

from __future__ import annotations

from peftx.report.table import Column, Table

__all__ = ["Column", "Table"]
