"""docs/conformance.md lists the laws there are, in their words, and its examples run."""

from __future__ import annotations

import re

import pytest

from peftx.testing import CASES, LawError, Subject, Trial, case_named, laws_of

HEADINGS = {
    "method": "Methods",
    "row": "Rows to compare with",
    "data set": "Data sets",
    "task": "Tasks",
    "model": "Models",
    "plugin": "Plugins",
}


@pytest.fixture(scope="module")
def page(repository) -> str:
    return (repository / "docs" / "conformance.md").read_text()


@pytest.mark.parametrize("kind", HEADINGS)
def test_the_tables_are_the_laws(page, kind):
    section = page.partition(f"\n## {HEADINGS[kind]}\n")[2].partition("\n## ")[0]
    stated = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.M)
    marks = {"fast": "", "slow": " (slow)", "asked": " (when asked for)"}
    assert stated == [(law.name, law.demands + marks[law.cost]) for law in laws_of(kind)]


def test_its_own_law_runs_and_can_fail(page):
    source = re.search(r"## A law of your own.*?```python\n(.*?)```", page, re.DOTALL).group(1)
    space: dict = {}
    exec(compile(source, "conformance.md", "exec"), space)
    law = space["keeps_signs"]
    law(Trial(Subject("core.lora"), case_named("linear")))

    class Turned(Trial):
        def attach(self, model, name="default", seed=23):
            model.trunk[0].weight.data.neg_()

    with pytest.raises(LawError, match=r"a weight of trunk\.0 changed its sign"):
        law(Turned(Subject("core.lora"), case_named("linear")))


def test_its_trial_runs(page):
    source = re.search(r"```python\n(from peftx.testing import CASES.*?)```", page, re.DOTALL).group(1)
    exec(compile(source.replace("mine.scale", "core.lora").replace("timm_vit", "linear"), "page", "exec"), {})
    libraries = {case.requires for case in CASES} - {""}
    named = page.partition("## The models")[2]
    for library in libraries - {"whisper"}:
        assert library in named
