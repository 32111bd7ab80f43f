"""The list of known role tables: the families peftx ships, and those a plugin or a user adds."""

from __future__ import annotations

from peftx.adapters.roles import (
    open_clip,
    openai_whisper,
    timm_beit,
    timm_convnext,
    timm_eva,
    timm_resnet,
    timm_swin,
    timm_vit,
    torch_transformers,
    torchvision_vit,
    transformers_bert,
    transformers_clip,
    transformers_gpt2,
    transformers_llama,
    transformers_vit,
    transformers_whisper,
)
from peftx.adapters.roles.table import RoleTable

__all__ = ["BUILTIN", "register_table", "tables"]

BUILTIN: tuple[RoleTable, ...] = (
    *timm_vit.TABLES,
    *timm_beit.TABLES,
    *timm_eva.TABLES,
    *timm_swin.TABLES,
    *timm_convnext.TABLES,
    *timm_resnet.TABLES,
    *torchvision_vit.TABLES,
    *transformers_vit.TABLES,
    *transformers_clip.TABLES,
    *transformers_gpt2.TABLES,
    *transformers_bert.TABLES,
    *transformers_whisper.TABLES,
    *transformers_llama.TABLES,
    *openai_whisper.TABLES,
    *open_clip.TABLES,
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
