"""The list of known role tables: the families peftx ships, and those a plugin or a user adds."""

from __future__ import annotations

from peftx.adapters.roles import timm_vit, torch_transformers
from peftx.adapters.roles.table import RoleTable

__all__ = ["BUILTIN", "register_table", "tables"]

BUILTIN: tuple[RoleTable, ...] = (
    *timm_vit.TABLES,
    *torch_transformers.TABLES,
)
"""Tables of the families peftx ships, each tested against its real library."""

_registered: list[RoleTable] = []


def tables() -> tuple[RoleTable, ...]:
    """Return every table in the order they are asked among equals: registered ones, the latest first."""
    return (*_registered, *BUILTIN)


def register_table(table: RoleTable) -> RoleTable:
    """Add the table of a model family: it wins over built-in ones and replaces one of the same name."""
    _registered[:] = [table, *(known for known in _registered if known.family != table.family)]
    return table
