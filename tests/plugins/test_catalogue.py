"""What core knows of first-party packs that are not installed is what they bring when they are."""

from __future__ import annotations

import pytest

from peftx.plugins import CATALOGUE, get_registry

AVAILABLE = [domain for domain, pack in CATALOGUE.items() if pack.state == "available"]


@pytest.mark.parametrize("domain", AVAILABLE)
def test_the_names_are_those_of_the_pack(domain):
    registry = get_registry()
    assert domain in registry.domains, f"peftx-{domain} is not installed"
    tables = (registry.methods, registry.tasks, registry.datasets, registry.models)
    names = {entry.name for table in tables for entry in table.values() if entry.domain == domain}
    bare = {name.partition(".")[2] for name in names}
    bare |= {
        alias for one in registry.datasets.values() if one.domain == domain for alias in one.spec.aliases
    }
    assert set(CATALOGUE[domain].names) == bare
