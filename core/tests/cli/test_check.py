"""`peftx check`: a table, sentences, JSON, exit status."""

from __future__ import annotations

import json


def test_a_sound_method_passes_with_a_table(peftx):
    status, out, err = peftx("check", "lora", "--case", "linear", "--law", "effect", "--law", "counts")
    assert status == 0 and err == "checking core.lora\n"
    rows = [line.split() for line in out.splitlines()]
    assert ["core.lora", "(method)", "effect", "passed", "1"] in [row[:5] for row in rows]
    assert out.rstrip().endswith("2 passed: every law that could be judged holds")


def test_a_failure_is_named_and_the_status_is_1(peftx):
    status, out, err = peftx("check", "toy.small", "--law", "published", "--law", "card")
    assert status == 1 and err == "checking toy.small\n"
    assert "FAILED  toy.small: card: neither card nor descriptor names a source" in out
    assert out.rstrip().endswith("1 passed, 1 failed: card to be mended")
    status, out, err = peftx("--debug", "check", "toy.small", "--law", "card")
    assert status == 1 and "Traceback" in err and "Traceback" not in out


def test_json_holds_every_outcome(peftx):
    status, out, _ = peftx(
        "check", "core.head", "--case", "linear", "--law", "kinds", "--law", "effect", "--json"
    )
    data = json.loads(out)
    assert status == 0 and data["ok"] is True
    assert {(one["law"], one["case"], one["state"]) for one in data["outcomes"]} == {
        ("kinds", "", "skipped"),
        ("effect", "linear", "passed"),
    }
    assert all(one["demands"] for one in data["outcomes"])


def test_options_reach_the_thing(peftx):
    status, out, _ = peftx(
        "check", "core.lora", "--set", "rank=3", "--case", "linear", "--law", "counts", "--json"
    )
    assert status == 0 and json.loads(out)["counts"]["passed"] == 1
    status, out, err = peftx("check", "core.lora", "--set", "rank=0", "--case", "linear", "--law", "counts")
    assert (status, out) == (2, "") and err.endswith("error: core.lora, rank: must be at least 1 (got 0)\n")


def test_refusals_are_one_sentence_with_status_2(peftx):
    for arguments, message in (
        ([], "name what to check"),
        (["core.lroa"], "Did you mean core.lora"),
        (["core.lora", "--law", "efect"], "no law is called 'efect'. Did you mean effect"),
        (["core.lora", "--case", "linaer"], "no case is called 'linaer'. Did you mean linear"),
        (["core.lora", "--set", "rank"], "write OPTION=VALUE"),
        (["core.lora", "--law", "covers"], "no law called covers is one for core.lora"),
        (["toy.hello"], "nothing is called 'toy.hello'"),
        (["vision.digits"], "the pack vision, which is not installed"),
    ):
        status, out, err = peftx("check", *arguments)
        assert (status, out) == (2, "") and "Traceback" not in err
        assert message in err.splitlines()[-1], err


def test_laws_and_cases_are_listed(peftx):
    status, out, _ = peftx("check", "--list", "--json")
    data = json.loads(out)
    assert status == 0
    assert {"of": "method", "law": "effect"}.items() <= next(
        law for law in data["laws"] if law["law"] == "effect"
    ).items()
    assert {case["case"] for case in data["cases"]} >= {"linear", "timm_vit"}
    assert "Moving the adapter changes the output" in peftx("check", "--list")[1]


def test_a_domain_with_broken_parts_is_judged_as_a_whole(peftx):
    status, out, err = peftx("check", "toy", "--law", "targets", "--law", "licence", "--law", "counts")
    assert status == 1 and "FAILED  toy: targets: target of toy.scale" in out
    assert "it cannot be made" in out and "Traceback" not in err
