"""docs/roles.md says what the code does: every role with its meaning, every family, and an example that runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

from peftx.adapters.roles import ROLES, meaning, roles_of, tables
from peftx.adapters.roles import registry as registry_module

PAGE = Path(__file__).parents[4] / "docs" / "roles.md"


@pytest.fixture(scope="module")
def page() -> str:
    if not PAGE.exists():
        pytest.skip("the documentation is not part of this installation")
    return PAGE.read_text(encoding="utf-8")


def section(page: str, title: str) -> dict[str, str]:
    """First and second column of the table under a heading."""
    body = page.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", body, flags=re.MULTILINE)
    assert rows
    return dict(rows)


def test_vocabulary(page):
    assert section(page, "The vocabulary") == {role: meaning(role) for role in ROLES}


def test_families(page):
    assert list(section(page, "The families")) == [table.family for table in registry_module.BUILTIN]


def test_the_example_table_works(page):
    example = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)[-1]
    before = list(registry_module._registered)
    try:
        exec(example, {})
        assert tables()[0].family == "acme-mixer"

        def module(name: str = "Part", **children: nn.Module) -> nn.Module:
            made = type(name, (nn.Module,), {"__module__": "acme.models"})()
            for key, child in children.items():
                made.add_module(key, child)
            return made

        attention = module(to_all=nn.Linear(4, 12), back=nn.Linear(4, 4))
        block = module(attn=attention, wide=nn.Linear(4, 8), narrow=nn.Linear(8, 4), pre=nn.LayerNorm(4))
        hits = roles_of(module("Mixer", blocks=nn.ModuleList([block]), predict=nn.Linear(4, 2)))
        assert {path: (hit.role, hit.group) for path, hit in hits.items()} == {
            "blocks.0.attn.to_all": ("attention.qkv", "blocks.0.attn"),
            "blocks.0.attn.back": ("attention.out", "blocks.0.attn"),
            "blocks.0.wide": ("mlp.up", "blocks.0.mlp"),
            "blocks.0.narrow": ("mlp.down", "blocks.0.mlp"),
            "blocks.0.pre": ("norm", ""),
            "predict": ("head", ""),
        }
    finally:
        registry_module._registered[:] = before
