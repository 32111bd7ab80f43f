"""openai-whisper: the original encoder and decoder."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, PARAMETERS, mlp, separate_attention
from peftx.adapters.roles.table import RoleTable, Rule

__all__ = ["TABLES"]

WHISPER = RoleTable(
    family="openai-whisper",
    roots=(r"whisper\.model\.\w+",),
    rules=(
        *separate_attention("cross_attn", "query", "key", "value", "out", "cross_attention"),
        *separate_attention("attn", "query", "key", "value", "out"),
        *mlp("mlp", "0", "2"),
        Rule(ANY + r"conv[12]", "embedding.patch"),
        Rule(ANY + r"token_embedding", "embedding.token"),
        NORMS,
    ),
    parameters=PARAMETERS,
    note="no classification head and no lm_head module: logits are x @ token_embedding.weight.T, read raw",
)

TABLES = (WHISPER,)
