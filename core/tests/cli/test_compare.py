from __future__ import annotations

import json

import pytest


@pytest.fixture
def pair(toy, tmp_path, write_run, make_row):
    for seed, lora, dora in ((0, 90.0, 92.0), (1, 91.0, 92.0), (2, 95.0, 98.0)):
        write_run(tmp_path / "lora" / f"s{seed}", make_row("core.lora", lora), seed=seed)
        write_run(tmp_path / "dora" / f"s{seed}", make_row("core.dora", dora, trainable=1500), seed=seed)
    return ["lora", "dora"]


def test_settings_scores_and_costs(peftx, pair):
    status, out, err = peftx("compare", *pair)
    assert status == 0
    assert err == (
        "note: dora - lora: 3 seeds; of so few the bootstrap interval is too narrow, and Student's is right if the "
        "differences are normal\n"
    )
    lines = out.splitlines()
    assert lines[2].split() == ["lora", "core.lora", "toy.small", "toy.net", "0,", "1,", "2"]
    settings = lines.index("settings that differ:")
    assert lines[settings + 3].split() == ["method.name", "core.lora", "core.dora"]
    assert lines[settings + 4].split() == ["method.rank_stabilised", "-", "false"], (
        "an option one of them has"
    )
    start = lines.index("test scores, and differences to lora paired by seed:")
    assert lines[start + 3].split() == ["accuracy", "%", "lora", "92.00", "2.65", "3", "-", "-", "-", "-"]
    assert lines[start + 4].split() == (
        "accuracy % dora 94.00 3.46 3 +2.00 3 +1.00 .. +3.00 -0.48 .. +4.48".split()
    ), "by hand: 2 +- 4.303 / sqrt(3)"
    costs = out.partition("costs, medians over the seeds:")[2]
    assert "1,500 (1.50x)" in costs and "(1.00x)" in costs


def test_json_has_the_difference_of_every_seed(peftx, pair):
    status, out, _ = peftx("compare", *pair, "--json")
    found = json.loads(out)
    score = next(s for s in found["scores"] if s["group"] == "dora" and s["metric"] == "accuracy")
    assert status == 0 and score["differences"] == [2.0, 1.0, 3.0] and score["seeds"] == [0, 1, 2]
    assert score["bootstrap"] == {"low": 1.0, "high": 3.0}
    assert found["notes"] and found["warnings"] == []


def test_equal_settings_and_one_seed(peftx, toy, tmp_path, write_run):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", fingerprint="other")
    status, out, err = peftx("compare", "a", "b")
    assert status == 0 and "settings: the same" in out
    assert "warning: a and b were trained and scored on different data" in err
    assert "one difference has no spread" in err


def test_mistakes_cost_one_sentence(peftx, pair, tmp_path):
    assert peftx("compare", "lora") == (2, "", "error: a comparison needs at least two runs\n")
    assert peftx("compare", "lora", "gone") == (2, "", "error: no run folder at gone\n")
    assert peftx("compare")[0] == 2
