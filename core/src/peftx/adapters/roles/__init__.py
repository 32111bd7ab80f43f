"""What every place of a model does: one vocabulary of roles, and a table per model family.

``roles_of(model)`` says which layer plays which role, ``head_of(model)`` where the classification head is,
and ``group_of`` which layers belong together. Nothing here imports torch or a model library.
"""

from __future__ import annotations

from peftx.adapters.roles.heads import head_of
from peftx.adapters.roles.lookup import group_of, lm_head_of, parameter_roles_of, roles_of
from peftx.adapters.roles.registry import register_table, tables
from peftx.adapters.roles.table import Head, RoleHit, RoleTable, Rule
from peftx.adapters.roles.vocabulary import ROLES, expand, is_query, meaning, part_role, select

__all__ = [
    "ROLES",
    "Head",
    "RoleHit",
    "RoleTable",
    "Rule",
    "expand",
    "group_of",
    "head_of",
    "is_query",
    "lm_head_of",
    "meaning",
    "parameter_roles_of",
    "part_role",
    "register_table",
    "roles_of",
    "select",
    "tables",
]
