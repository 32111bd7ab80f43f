"""With several packs installed a core method needs a domain, and often the model or the data set says which."""

from __future__ import annotations

import pytest

from peftx.cli.choosing import choose
from peftx.errors import ConfigError
from peftx.plugins import get_registry


@pytest.mark.parametrize(
    ("typed", "task"),
    [
        ({"model": "vit_micro"}, "vision.classification"),
        ({"model": "vision.vit_micro"}, "vision.classification"),
        ({"model": "vit_tiny_patch16_224"}, "vision.classification"),
        ({"model": "minilm"}, "timeseries.forecasting"),
        ({"model": "google-bert/bert-base-uncased"}, "timeseries.forecasting"),
        ({"data": "digits"}, "vision.classification"),
        ({"data": "waves"}, "timeseries.forecasting"),
        # the data set is asked first: the model's name may be anybody's
        ({"data": "waves", "model": "gpt2"}, "timeseries.forecasting"),
    ],
)
def test_the_domain_is_that_of_the_model_or_of_the_data(typed, task):
    chosen = choose(get_registry(), "core.lora", typed)
    assert chosen.task is not None and chosen.task.name == task


@pytest.mark.parametrize("typed", [{}, {"model": "gpt2"}])
def test_without_one_it_has_to_be_named(typed):
    with pytest.raises(
        ConfigError, match=r"^core.lora fits many domains: name one, such as `peftx run \w+ --method"
    ):
        choose(get_registry(), "core.lora", typed)


def test_methods_of_one_pack_run_in_the_other():
    chosen = choose(get_registry(), "timeseries", {"method": "vision.snella"})
    assert chosen.method is not None and chosen.method.name == "vision.snella"
    chosen = choose(get_registry(), "vision", {"method": "timeseries.one_for_all"})
    assert chosen.task is not None and chosen.task.name == "vision.classification"
