"""The small models are what they say: kinds, names, values, and a reason where their library is missing."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from peftx.adapters import KINDS
from peftx.adapters.activations import activation_sites
from peftx.adapters.survey import parameter_sites, weight_sites
from peftx.errors import UnknownNameError
from peftx.testing import CASES, FAST, case_named


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_case_has_the_kinds_it_states_and_is_always_the_same(case):
    if case.missing():
        pytest.skip(case.missing())
    model = case.build()
    own = [site for site in parameter_sites(model) if site.kind in ("norm", "parameter")]
    found = {s.kind for s in (*weight_sites(model), *own) if s.role != "head"}
    assert set(case.kinds) == found | {site.kind for site in activation_sites(model)}
    twin = case.build()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    for n in (1, 4):
        assert len(case.call(model, *case.samples(n))) == n or case.unmixed


def test_every_kind_that_can_be_adapted_occurs_among_the_fast_cases():
    found = {kind for name in FAST for kind in case_named(name).kinds}
    assert found == set(KINDS) - {"statistic"}
    assert len({case.name for case in CASES}) == len(CASES)


def test_a_library_that_is_missing_is_said():
    case = dataclasses.replace(case_named("timm_vit"), requires="no_such_library")
    assert case.missing() == "no_such_library is not installed"
    with pytest.raises(UnknownNameError, match="Did you mean timm_vit"):
        case_named("timm_vitt")
