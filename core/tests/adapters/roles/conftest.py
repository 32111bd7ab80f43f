"""Shared checks of a role table against a real model; every family's test file uses them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from peftx.adapters.roles import ROLES, RoleHit, group_of, parameter_roles_of, roles_of

LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.Embedding,
    nn.MultiheadAttention,
    nn.LayerNorm,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.GroupNorm,
    nn.RMSNorm,
)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    torch.set_num_threads(1)


def _must_have_role(module: nn.Module) -> bool:
    if isinstance(module, LAYERS):
        return next(module.parameters(recurse=False), None) is not None
    return type(module).__qualname__ in ("Conv1D", "LlamaRMSNorm", "GlobalResponseNorm")


def _written(hit: RoleHit) -> str:
    return f"{hit.role}[{','.join(hit.parts)}]" if hit.parts else hit.role


@pytest.fixture
def check_complete() -> Callable[..., dict[str, RoleHit]]:
    """Every layer has a role, every parameter is covered once, and nothing is `other` or generic by accident."""

    def check(model: nn.Module, generic: bool = False) -> dict[str, RoleHit]:
        hits = roles_of(model)
        loose = parameter_roles_of(model)
        layers = {path for path, module in model.named_modules() if _must_have_role(module)}
        assert layers - set(hits) == set(), "layers without a role"
        assert {h.role for h in (*hits.values(), *loose.values())} <= ROLES
        unnamed = {path for path, hit in {**hits, **loose}.items() if hit.role == "other"}
        assert unnamed == set(), "places without a name"
        modules = dict(model.named_modules())
        covered = [f"{path}.{name}".lstrip(".") for path in hits for name in modules[path]._parameters]
        covered = [name for name in covered if name in dict(model.named_parameters(remove_duplicate=False))]
        assert sorted([*covered, *loose]) == sorted(
            n for n, _ in model.named_parameters(remove_duplicate=False)
        )
        if not generic:
            assert {p for p, h in {**hits, **loose}.items() if h.family == "generic"} == set()
        return hits

    return check


@pytest.fixture
def role_map() -> Callable[..., dict[str, str]]:
    """Roles below a prefix, as text: `attention.qkv[q,k,v]`."""

    def below(model: nn.Module, prefix: str) -> dict[str, str]:
        return {p[len(prefix) :]: _written(h) for p, h in roles_of(model).items() if p.startswith(prefix)}

    return below


@pytest.fixture
def loose_map() -> Callable[[nn.Module], dict[str, str]]:
    """Roles of the parameters that no layer holds."""
    return lambda model: {path: _written(hit) for path, hit in parameter_roles_of(model).items()}


@pytest.fixture
def groups() -> Callable[..., dict[str, list[str]]]:
    """Coupling groups with more than one member."""

    def grouped(model: nn.Module) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path, hit in roles_of(model).items():
            found.setdefault(group_of(path, hit), []).append(path)
        return {group: members for group, members in found.items() if len(members) > 1}

    return grouped
