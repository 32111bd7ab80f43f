from __future__ import annotations

from types import SimpleNamespace

import pytest

from peftx.cli.commands import explain


@pytest.fixture
def plans(monkeypatch):
    """Plans that reach the explanation, which is answered without torch."""
    seen = []

    def answer(plan):
        seen.append(plan)
        return SimpleNamespace(
            render=lambda sites: f"sites {sites}", to_dict=lambda: {"method": plan.method.name}
        )

    monkeypatch.setattr(explain, "_explain", answer)
    return seen


@pytest.mark.parametrize(
    "arguments",
    [
        ["core.lora", "--rank", "4"],
        ["lora", "--model", "net", "--rank", "4"],
        ["toy", "--method", "lora", "--rank", "4"],
    ],
)
def test_a_core_method_takes_the_only_task_there_is(peftx, plans, arguments):
    status, out, err = peftx("explain", *arguments)
    assert (status, out, err) == (0, "sites False\n", "")
    (plan,) = plans
    assert (plan.task.name, plan.method.name, plan.method_config.rank) == ("toy.sorting", "core.lora", 4)
    assert plan.model_name == "toy.net"


def test_every_site_and_json_are_switches(peftx, plans):
    assert peftx("explain", "core.lora", "--sites")[1] == "sites True\n"
    assert '"method": "core.lora"' in peftx("explain", "--json", "core.lora")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a method, such as `peftx explain core.lora --model vit_micro`"),
        (["core.lorra"], "no domain, task or method is called 'core.lorra'. Did you mean core.lora"),
        (["core.lora", "--rank", "0"], "--rank: must be at least 1 (got 0)"),
        (["core.lora", "--sties"], "--sties: no such option."),
        (["core.lora", "--data", "far"], "toy.far is not under"),
    ],
)
def test_mistakes_are_one_line(peftx, plans, arguments, message):
    status, out, err = peftx("explain", *arguments)
    assert (status, out) == (2, "") and err.startswith(f"error: {message}") and not plans
