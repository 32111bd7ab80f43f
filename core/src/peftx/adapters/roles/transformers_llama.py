"""transformers' decoders in the shape of Llama: rotary positions, RMS norms, a gated feed-forward block."""

from __future__ import annotations

from peftx.adapters.roles.common import ANY, NORMS, mlp, separate_attention
from peftx.adapters.roles.table import RoleTable, Rule

__all__ = ["TABLES"]

_NAMES = "llama|mistral|qwen2|qwen3|gemma|gemma2|phi3|olmo|olmo2|granite|smollm3"

LLAMA = RoleTable(
    family="transformers-llama",
    roots=(rf"transformers\.models\.({_NAMES})\.modeling_\w+\.\w+",),
    rules=(
        *separate_attention("self_attn", "q_proj", "k_proj", "v_proj", "o_proj"),
        # Phi-3: heads of q, then fewer heads of k and v, so the slices are unequal and the weight stays whole
        Rule(rf"(?P<unit>{ANY}self_attn)\.qkv_proj", "attention.qkv"),
        *mlp("mlp", "up_proj", "down_proj", gate="gate_proj"),
        # Phi-3: forward is `gate, up = gate_up_proj(x).chunk(2, dim=-1)`
        Rule(rf"(?P<unit>{ANY}mlp)\.gate_up_proj", "mlp.up", ("gate", "up")),
        Rule(ANY + r"embed_tokens", "embedding.token"),
        Rule(ANY + r"lm_head", "lm_head"),
        NORMS,
    ),
    note="few biases or none: core.bitfit has almost nothing to train here",
)

TABLES = (LLAMA,)
