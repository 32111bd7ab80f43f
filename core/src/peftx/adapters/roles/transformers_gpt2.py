"""transformers' GPT-2, whose linear maps are ``Conv1D``: weight (in, out), so slices lie along its second axis."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, QKV, mlp
from peftx.adapters.roles.table import Head, RoleTable, Rule

__all__ = ["TABLES"]

_ROOT = r"transformers\.models\.gpt2\.modeling_gpt2\."

GPT2 = RoleTable(
    family="transformers-gpt2",
    roots=(_ROOT + r"\w+",),
    rules=(
        Rule(rf"(?P<unit>{ANY}crossattention)\.c_attn", "cross_attention.kv", ("k", "v")),
        Rule(rf"(?P<unit>{ANY}crossattention)\.q_attn", "cross_attention.q"),
        Rule(rf"(?P<unit>{ANY}crossattention)\.c_proj", "cross_attention.out"),
        Rule(rf"(?P<unit>{ANY}attn)\.c_attn", "attention.qkv", QKV),
        Rule(rf"(?P<unit>{ANY}attn)\.c_proj", "attention.out"),
        *mlp("mlp", "c_fc", "c_proj"),
        Rule(ANY + r"wte", "embedding.token"),
        Rule(ANY + r"wpe", "embedding.position"),
        Rule(ANY + r"lm_head", "lm_head"),
        NORMS,
    ),
    heads=(Head((_ROOT + r"GPT2DoubleHeadsModel",), ("multiple_choice_head",)),),
    note="lm_head.weight is wte.weight, one tensor under two names",
)

TABLES = (GPT2,)
