"""The role vocabulary and its queries."""

from __future__ import annotations

import pytest

from peftx.adapters.roles import ROLES, expand, is_query, meaning, part_role, select
from peftx.errors import SelectionError

SEPARATE = ("attention.q", "attention.k", "attention.v")


def test_every_role_has_a_meaning():
    assert all(meaning(role) for role in ROLES)
    with pytest.raises(KeyError):
        meaning("attention")


@pytest.mark.parametrize(
    ("query", "accepted"),
    [
        ("attention", {role for role in ROLES if role.startswith("attention.")}),
        ("cross_attention", {role for role in ROLES if role.startswith("cross_attention.")}),
        ("mlp", {"mlp.up", "mlp.gate", "mlp.down"}),
        ("attention.qkv", {"attention.qkv", "attention.kv", *SEPARATE}),
        ("attention.kv", {"attention.kv", "attention.k", "attention.v"}),
        ("attention.q", {"attention.q"}),
        ("norm", {"norm"}),
        ("head", {"head"}),
    ],
)
def test_expand(query, accepted):
    predicate = expand(query)
    assert {role for role in ROLES if predicate(role)} == accepted
    assert is_query(query)


def test_expand_refuses_what_is_no_role():
    with pytest.raises(SelectionError, match=r"'atention' is not a role.*Did you mean attention"):
        expand("atention")
    with pytest.raises(SelectionError):
        select(["attention.q", "blocks.*"], "attention.q")
    assert not is_query("blocks.*")
    assert not is_query("qkv")


@pytest.mark.parametrize(
    ("queries", "role", "parts", "expected"),
    [
        (["attention.q", "attention.v"], "attention.qkv", ("q", "k", "v"), ("q", "v")),
        (["attention.kv"], "attention.qkv", ("q", "k", "v"), ("k", "v")),
        (["attention.qkv"], "attention.qkv", ("q", "k", "v"), ("",)),
        (["attention", "attention.q"], "attention.qkv", ("q", "k", "v"), ("",)),
        (["attention.q"], "attention.qkv", (), ()),
        (["attention.q"], "attention.q", (), ("",)),
        (["attention.qkv"], "attention.v", (), ("",)),
        (["cross_attention.v"], "cross_attention.kv", ("k", "v"), ("v",)),
        (["attention.v"], "cross_attention.kv", ("k", "v"), ()),
        (["mlp.gate"], "mlp.up", ("gate", "up"), ("gate",)),
        (["mlp.up"], "mlp.up", ("gate", "up"), ("",)),
        (["norm"], "mlp.up", (), ()),
        ([], "mlp.up", (), ()),
    ],
)
def test_select(queries, role, parts, expected):
    assert select(queries, role, parts) == expected


def test_part_role():
    assert part_role("attention.qkv", "q") == "attention.q"
    assert part_role("mlp.up", "gate") == "mlp.gate"
    assert part_role("norm", "") == "norm"
