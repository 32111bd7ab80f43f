"""Rules several families share, and the pieces their patterns are built from."""

from __future__ import annotations

from peftx.adapters.roles.table import Rule

__all__ = [
    "ANY",
    "BLOCK",
    "NORMS",
    "PARAMETERS",
    "QKV",
    "fused_attention",
    "mlp",
    "packed_attention",
    "separate_attention",
]

#: any path, or none, in front of what follows: a table also serves a block taken out of its model
ANY = r"(?:.*\.)?"

#: the block in front of what follows, where a library has no module for the feed-forward part
BLOCK = r"(?:(?P<block>.*)\.)?"

#: thirds of a fused projection, in the order every supported library stacks them
QKV = ("q", "k", "v")

#: whatever a normalisation is called and wherever it stands, it is one
NORMS = Rule(r".*", "norm", kinds=("norm",))

#: parameters held by modules that are not layers; libraries agree well enough to share one list
PARAMETERS: tuple[Rule, ...] = (
    Rule(ANY + r"(cls|class|dist|distillation|reg|mask)_(token|embedding)", "embedding.class"),
    Rule(ANY + r"(latent|query|probe|register_tokens|storage_tokens)", "embedding.class"),
    Rule(ANY + r"(absolute_)?pos(ition|itional)?_embed\w*", "embedding.position"),
    Rule(ANY + r"(rel_pos|relative_position)\w*", "embedding.position"),
    Rule(
        ANY + r"(gamma|lambda)(_?\d)?|" + ANY + r"(logit_scale|logit_bias|layer_scale\w*|head_scale)", "scale"
    ),
    # separate halves of a fused bias (BEiT, EVA, Swin v2): added to the product, so they are of its parts
    Rule(r"(?P<unit>.*)\.q_bias", "attention.q"),
    Rule(r"(?P<unit>.*)\.k_bias", "attention.k"),
    Rule(r"(?P<unit>.*)\.v_bias", "attention.v"),
)


def fused_attention(unit: str, qkv: str, out: str, raw: bool = False) -> tuple[Rule, ...]:
    """Rules for an attention module at ``unit`` with one q, k, v weight and an output map."""
    return (
        Rule(rf"(?P<unit>{ANY}{unit})\.{qkv}", "attention.qkv", QKV, raw=raw),
        Rule(rf"(?P<unit>{ANY}{unit})\.{out}", "attention.out"),
    )


def packed_attention(unit: str, base: str = "attention") -> tuple[Rule, ...]:
    """Rules for an ``nn.MultiheadAttention`` at ``unit``: the module is the place of its in_proj_weight."""
    return (
        Rule(rf"(?P<unit>{ANY}{unit})", f"{base}.qkv", QKV, kinds=("packed_attention",)),
        Rule(rf"(?P<unit>{ANY}{unit})\.out_proj", f"{base}.out", raw=True),
    )


def separate_attention(
    unit: str, q: str, k: str, v: str, out: str, base: str = "attention", inner: str = ""
) -> tuple[Rule, ...]:
    """Rules for an attention module at ``unit`` with q, k, v and output maps of their own.

    ``inner`` is put between the unit and q, k, v, where a library keeps them one module deeper.
    """
    head = rf"(?P<unit>{ANY}{unit})\."
    return (
        Rule(f"{head}{inner}{q}", f"{base}.q"),
        Rule(f"{head}{inner}{k}", f"{base}.k"),
        Rule(f"{head}{inner}{v}", f"{base}.v"),
        Rule(f"{head}{out}", f"{base}.out"),
    )


def mlp(unit: str, up: str, down: str, gate: str = "") -> tuple[Rule, ...]:
    """Rules for a feed-forward module at ``unit``."""
    head = rf"(?P<unit>{ANY}{unit})\."
    rules = (Rule(f"{head}{up}", "mlp.up"), Rule(f"{head}{down}", "mlp.down"))
    return (*rules, Rule(f"{head}{gate}", "mlp.gate")) if gate else rules
