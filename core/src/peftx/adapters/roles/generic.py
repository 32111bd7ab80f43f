"""Roles of models no table knows, from the last part of a path, the layer's kind and its neighbours.

Names are widespread enough that q, k, v, output and feed-forward maps of most transformers are found. A fused
weight is cut into slices only where the name fixes their order; a name that different models use for
different layouts (``qkv_proj``, ``c_attn``, ``query_key_value``) stays whole, because a wrong slice would
train silently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from peftx.adapters.roles.common import PARAMETERS, QKV
from peftx.adapters.roles.table import RoleHit

__all__ = ["FAMILY", "parameter_role", "role_of"]

FAMILY = "generic"

_SLICED = frozenset(("qkv", "to_qkv", "Wqkv"))
_WHOLE = frozenset(("qkv_proj", "c_attn", "query_key_value", "qkv_linear"))
_KV = frozenset(("kv", "to_kv", "kv_proj"))
_Q = frozenset(
    ("q", "q_proj", "query", "to_q", "wq", "q_lin", "linear_q", "q_linear", "query_proj", "q_attn")
)
_K = frozenset(("k", "k_proj", "key", "to_k", "wk", "k_lin", "linear_k", "k_linear", "key_proj"))
_V = frozenset(("v", "v_proj", "value", "to_v", "wv", "v_lin", "linear_v", "v_linear", "value_proj"))
_ATTENDS = _SLICED | _WHOLE | _KV | _Q
_OUT = frozenset(("out_proj", "o_proj", "out_lin", "linear_out"))
_UP = frozenset(
    (
        "fc1",
        "up_proj",
        "c_fc",
        "lin1",
        "linear1",
        "wi",
        "wi_1",
        "fc1_x",
        "fc_in",
        "intermediate_dense",
        "dense_h_to_4h",
    )
)
_GATE = frozenset(("gate_proj", "fc1_g", "wi_0", "w_gate"))
_DOWN = frozenset(("fc2", "down_proj", "lin2", "linear2", "output_dense", "fc_out", "dense_4h_to_h"))
_AFTER = frozenset(("proj", "c_proj", "dense", "output", "out", "o", "wo"))
_FEEDFORWARD = frozenset(("mlp", "ffn", "ff", "feed_forward", "feedforward", "net"))
_WRAPPERS = frozenset(("intermediate", "output"))
_ATTENTION = re.compile(r"(self_?|cross_?|enc_?dec_?)?(attn|attention)\d*", re.IGNORECASE)
_CROSS = re.compile(r".*cross.*|enc(oder|_?dec)_?att(ention|n)|multihead_attn", re.IGNORECASE)
_PATCH = re.compile(r"patch_?embed\w*|stem")
_SHORTCUT = re.compile(r"downsample\w*|shortcut|reduction")


def role_of(path: str, kind: str, siblings: Mapping[str, str], batch_first: bool = True) -> RoleHit:
    """Return the role of a layer of an unknown model.

    Args:
        path: its module path.
        kind: its layer kind.
        siblings: leaf name -> kind of the layers that share its parent, itself included.
        batch_first: carried into the result.
    """
    names = path.split(".")
    leaf = names[-1]
    if leaf.isdigit() and len(names) > 1 and names[-2] == "to_out":
        names, leaf = names[:-1], "to_out"
    role, parts = _role(names, leaf, kind, siblings)
    return RoleHit(role, parts, FAMILY, _group(names, role, kind), batch_first)


def parameter_role(path: str, batch_first: bool = True) -> RoleHit:
    """Return the role of a parameter that a module outside every table holds itself."""
    for rule in PARAMETERS:
        match = rule.match(path, "")
        if match:
            return RoleHit(rule.role, rule.parts, FAMILY, match.groupdict().get("unit") or "", batch_first)
    return RoleHit("other", (), FAMILY, "", batch_first)


def _role(names: list[str], leaf: str, kind: str, siblings: Mapping[str, str]) -> tuple[str, tuple[str, ...]]:
    if kind == "norm":
        return "norm", ()
    if kind == "embedding":
        return _embedding(leaf), ()
    base = "cross_attention" if any(_CROSS.fullmatch(name) for name in names) else "attention"
    if kind == "packed_attention":
        return f"{base}.qkv", QKV
    found = _linear(leaf, siblings, names)
    if found:
        role, parts = found
        return (role.replace("attention", base, 1) if role.startswith("attention.") else role), parts
    if kind == "conv":
        if any(_PATCH.fullmatch(name) for name in names):
            return "embedding.patch", ()
        return ("downsample" if any(_SHORTCUT.fullmatch(name) for name in names) else "conv"), ()
    if leaf in ("lm_head", "embed_out"):
        return "lm_head", ()
    if any("pooler" in name for name in names):
        return "pooler", ()
    if any(_PATCH.fullmatch(name) for name in names[:-1]):
        return "embedding.patch", ()
    if any(_SHORTCUT.fullmatch(name) for name in names):
        return "downsample", ()
    return ("projection" if "projection" in leaf or leaf == "projector" else "other"), ()


def _linear(leaf: str, siblings: Mapping[str, str], names: list[str]) -> tuple[str, tuple[str, ...]] | None:
    if leaf in _SLICED:
        return "attention.qkv", QKV
    if leaf in _WHOLE:
        return "attention.qkv", ()
    if leaf in _KV:
        return "attention.kv", ("k", "v")
    for role, known in (("q", _Q), ("k", _K), ("v", _V)):
        # a lone layer called `value` or `v` is a value head as often as an attention map
        if leaf in known and len(_attention_names(siblings)) > 1:
            return f"attention.{role}", ()
    inside = bool(_attention_names(siblings)) or any(_ATTENTION.fullmatch(name) for name in names[:-1])
    if leaf == "to_out" or (leaf in _OUT and inside):
        return "attention.out", ()
    for role, known in (("mlp.up", _UP), ("mlp.gate", _GATE), ("mlp.down", _DOWN)):
        if leaf in known:
            return role, ()
    if leaf in _AFTER:
        if _attention_names(siblings):
            return "attention.out", ()
        if any(name in _UP | _GATE for name in siblings):
            return "mlp.down", ()
    return _wrapped(leaf, names) or _numbered(leaf, siblings, names)


def _wrapped(leaf: str, names: list[str]) -> tuple[str, tuple[str, ...]] | None:
    """The spelling of BERT and its many children: `attention.output.dense`, `intermediate.dense`, `output.dense`."""
    if leaf != "dense" or len(names) < 2 or names[-2] not in _WRAPPERS:
        return None
    if names[-2] == "intermediate":
        return "mlp.up", ()
    inside = len(names) > 2 and (_ATTENTION.fullmatch(names[-3]) or _CROSS.fullmatch(names[-3]))
    return ("attention.out" if inside else "mlp.down"), ()


def _numbered(leaf: str, siblings: Mapping[str, str], names: list[str]) -> tuple[str, tuple[str, ...]] | None:
    """Two linear layers of a sequential feed-forward module, or the w1, w2 (w3) of a gated one."""
    if leaf in ("w1", "w2", "w3") and "w2" in siblings:
        gated = "w3" in siblings
        return {"w1": "mlp.gate" if gated else "mlp.up", "w2": "mlp.down", "w3": "mlp.up"}[leaf], ()
    linear = sorted((int(n) for n, k in siblings.items() if n.isdigit() and k.startswith("linear")))
    inside = len(names) > 1 and names[-2] in _FEEDFORWARD and (names[-2] != "net" or len(names) > 3)
    if leaf.isdigit() and inside and len(linear) == 2 and int(leaf) in linear:
        return ("mlp.up" if int(leaf) == linear[0] else "mlp.down"), ()
    return None


def _attention_names(siblings: Mapping[str, str]) -> set[str]:
    return {name for name in siblings if name in _ATTENDS or name in _K or name in _V}


def _embedding(leaf: str) -> str:
    if "pos" in leaf or leaf == "wpe":
        return "embedding.position"
    return "embedding.type" if "type" in leaf or "segment" in leaf else "embedding.token"


def _group(names: list[str], role: str, kind: str) -> str:
    """The attention or feed-forward module above the place; a feed-forward without one gets a name."""
    if kind == "packed_attention":
        return ".".join(names)
    above = names[:-1]
    if "attention." in role:
        for index in range(len(above), 0, -1):
            if _ATTENTION.fullmatch(above[index - 1]):
                return ".".join(above[:index])
        return ".".join(above) or "attn"
    if role.startswith("mlp."):
        if names[-1] == "dense" and above and above[-1] in _WRAPPERS:
            above = above[:-1]
        inside = bool(above) and above[-1] in _FEEDFORWARD
        return ".".join(above if inside else [*above, "mlp"])
    return ""
