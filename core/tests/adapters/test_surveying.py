"""Surveys are kept inside a block only, by model and by options."""

from __future__ import annotations

from typing import Any

from torch import nn

from peftx.adapters.survey import parameter_sites, weight_sites
from peftx.adapters.surveying import kept, one_survey


def test_answers_are_kept_inside_the_block_only() -> None:
    asked: list[Any] = []

    @kept
    def survey(model: Any, *, deep: bool = False) -> int:
        asked.append((model, deep))
        return len(asked)

    one, two = nn.Linear(1, 1), nn.Linear(1, 1)
    assert survey(one) != survey(one)
    with one_survey():
        first = survey(one)
        assert survey(one) == first
        assert survey(two) != first
        assert survey(one, deep=True) not in (first, survey(two))
        with one_survey():
            assert survey(one) == first
        assert survey(one) == first
    assert survey(one) != first


def test_a_model_changed_after_the_block_is_seen_anew() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    with one_survey():
        assert len(weight_sites(model)) == 1 and len(parameter_sites(model)) == 2
    model.append(nn.Linear(3, 2))
    assert len(weight_sites(model)) == 2 and len(parameter_sites(model)) == 4
