"""transformers' Whisper: encoder, decoder with cross-attention, audio classification."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, BLOCK, NORMS, separate_attention
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]

_ROOT = r"transformers\.models\.whisper\.modeling_whisper\."

WHISPER = RoleTable(
    family="transformers-whisper",
    roots=(_ROOT + r"\w+",),
    rules=(
        *separate_attention("self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
        *separate_attention("encoder_attn", "q_proj", "k_proj", "v_proj", "out_proj", "cross_attention"),
        Rule(BLOCK + r"fc1", "mlp.up"),
        Rule(BLOCK + r"fc2", "mlp.down"),
        Rule(ANY + r"conv[12]", "embedding.patch"),
        Rule(ANY + r"embed_tokens", "embedding.token"),
        Rule(ANY + r"embed_positions", "embedding.position"),
        Rule(ANY + r"proj_out", "lm_head"),
        NORMS,
    ),
    parameters=(Rule(ANY + r"layer_weights", "pooler"),),
    heads=(Head((_ROOT + r"WhisperForAudioClassification",), ("projector", "classifier")),),
    note="the key maps have no bias; proj_out.weight is embed_tokens.weight; encoder positions are a frozen table",
)

TABLES = (WHISPER,)
