"""Comparisons: what differs, differences by seed worked out by hand, and when there is nothing to compare."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peftx.errors import RunError
from peftx.plugins.manager import get_registry
from peftx.results import compare
from peftx.results.statistics import bootstrap_interval, t_interval

Write = Callable[..., Path]
Row = Callable[..., Any]


@pytest.fixture
def pair(tmp_path: Path, write_run: Write, make_row: Row) -> list[Path]:
    """lora and dora, seeds 0 to 2."""
    for seed, lora, dora in ((0, 90.0, 92.0), (1, 91.0, 92.0), (2, 95.0, 98.0)):
        write_run(
            tmp_path / "lora" / f"s{seed}", make_row("core.lora", lora), seed=seed, config={"out": f"x{seed}"}
        )
        write_run(
            tmp_path / "dora" / f"s{seed}",
            make_row("core.dora", dora, seconds=5.0, trainable=1500),
            make_row("core.lora", 1.0),
            seed=seed,
        )
    return [tmp_path / "lora", tmp_path / "dora"]


def test_differences_are_paired_by_seed(pair: list[Path]) -> None:
    found = compare(pair)
    assert [(g.name, g.method, g.seeds) for g in found.groups] == [
        ("lora", "core.lora", (0, 1, 2)),
        ("dora", "core.dora", (0, 1, 2)),
    ]
    base, score = [s for s in found.scores if (s.split, s.metric) == ("test", "accuracy")]
    assert (base.group, base.mean, base.n, base.difference, base.bootstrap) == ("lora", 92.0, 3, None, None)
    assert (score.group, score.mean, score.n, score.unit) == ("dora", 94.0, 3, "%")
    assert (score.seeds, score.differences, score.difference) == ((0, 1, 2), (2.0, 1.0, 3.0), 2.0)
    assert score.bootstrap == bootstrap_interval([2.0, 1.0, 3.0]) and score.student == t_interval(
        [2.0, 1.0, 3.0]
    )
    assert {(s.split, s.metric) for s in found.scores} == {
        (split, metric) for split in ("test", "val") for metric in ("accuracy", "loss")
    }
    assert found.scores[0].split == "test" and found.scores[0].metric == "accuracy", "the primary one first"


def test_settings_that_differ_and_only_those(pair: list[Path]) -> None:
    found = compare(pair)
    assert {one.key: one.values for one in found.settings} == {
        "method.name": ("core.lora", "core.dora"),
        "method.alpha": (16.0, None),
    }


def test_costs_are_medians_with_their_ratio(pair: list[Path]) -> None:
    costs = {cost.name: cost for cost in compare(pair).costs}
    assert costs["trainable"].values == (1000, 1500) and costs["trainable"].ratios == (1.0, 1.5)
    assert costs["seconds"].values == (2.5, 5.0) and costs["saved_bytes"].ratios == (1.0, 1.0)


def test_the_same_comparison_twice_is_the_same(pair: list[Path]) -> None:
    assert compare(pair) == compare(pair)
    assert json.loads(json.dumps(compare(pair).to_dict()))["scores"]


def test_few_seeds_are_told_of(pair: list[Path]) -> None:
    assert [note for note in compare(pair).notes if "bootstrap interval is too narrow" in note] == [
        "dora - lora: 3 seeds; of so few the bootstrap interval is too narrow, and Student's is right if the "
        "differences are normal"
    ]


def test_one_seed_has_no_interval(tmp_path: Path, write_run: Write) -> None:
    found = compare(
        [write_run(tmp_path / "a", test=1.0), write_run(tmp_path / "b", method="core.dora", test=3.0)]
    )
    score = next(s for s in found.scores if s.group == "b")
    assert (score.difference, score.differences, score.bootstrap, score.student, score.sd) == (
        2.0,
        (2.0,),
        None,
        None,
        None,
    )
    assert any("one difference has no spread" in note for note in found.notes)


def test_seeds_without_a_partner_are_named_and_left_out_of_the_difference(
    tmp_path: Path, write_run: Write
) -> None:
    for seed, test in ((0, 1.0), (1, 2.0), (2, 30.0)):
        write_run(tmp_path / "a" / str(seed), seed=seed, test=test)
    for seed, test in ((1, 4.0), (0, 3.0), (7, 50.0)):
        write_run(tmp_path / "b" / str(seed), seed=seed, test=test, method="core.dora")
    found = compare([tmp_path / "a", tmp_path / "b"])
    score = next(s for s in found.scores if s.group == "b")
    assert score.seeds == (0, 1) and score.difference == 2.0 and score.n == 3
    assert {"seed 2 of a has no partner in b", "seed 7 of b has no partner in a"} <= set(found.notes)


def test_no_seed_in_common_leaves_means_side_by_side(tmp_path: Path, write_run: Write) -> None:
    found = compare([write_run(tmp_path / "a", seed=0), write_run(tmp_path / "b", seed=1)])
    assert all(s.difference is None for s in found.scores) and any(
        "share no seed" in note for note in found.notes
    )


def test_three_groups_are_compared_with_the_first(tmp_path: Path, write_run: Write) -> None:
    folders = [
        write_run(tmp_path / n, test=t, options={"rank": r})
        for n, t, r in (("a", 1.0, 1), ("b", 2.0, 2), ("c", 4.0, 4))
    ]
    found = compare(folders)
    assert [s.difference for s in found.scores if (s.split, s.metric) == ("test", "accuracy")] == [
        None,
        1.0,
        3.0,
    ]
    assert found.settings[0].values == (1, 2, 4)


def test_what_makes_scores_doubtful_is_a_warning(tmp_path: Path, write_run: Write) -> None:
    first = write_run(tmp_path / "a")
    other = write_run(
        tmp_path / "b", model={"name": "toy.big"}, fingerprint="beef", environment={"device": "cuda"}
    )
    third = write_run(tmp_path / "c", data={"name": "toy.large"}, primary="loss")
    found = compare([first, other, third])
    assert found.warnings == (
        "a and b differ in their model: toy.net, toy.big",
        "a and b were trained and scored on different data: the fingerprints differ",
        "a and b ran on different hardware (cpu, 1 thread; cuda): time and memory do not compare",
        "a and c differ in their data: toy.small, toy.large",
        "a and c differ in their primary metric: accuracy, loss",
    )


def test_seeds_on_other_hardware_have_no_common_time(tmp_path: Path, write_run: Write) -> None:
    for name in ("a", "b"):
        write_run(tmp_path / name / "0", seed=0)
        write_run(tmp_path / name / "1", seed=1, environment={"device": "cpu", "threads": 1 + (name == "b")})
    found = compare([tmp_path / "a", tmp_path / "b"])
    costs = {cost.name: cost.values for cost in found.costs}
    assert costs["seconds"] == (2.5, None) and costs["trainable"] == (1000.0, 1000.0)
    assert found.warnings == (
        "a and b ran on different hardware (cpu, 1 thread; cpu, 2 threads): time and memory do not compare",
    )


def test_seeds_that_differ_in_what_changes_no_score_are_of_one_setting(
    tmp_path: Path, write_run: Write
) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "a" / str(seed), seed=seed, train={"lr": 0.01, "checkpoint": 60.0 * seed})
    write_run(tmp_path / "b", train={"lr": 0.01, "checkpoint": 60.0})
    assert compare([tmp_path / "a", tmp_path / "b"]).groups[0].seeds == (0, 1)


def test_other_numbers_of_samples_are_a_warning(tmp_path: Path, write_run: Write, make_row: Row) -> None:
    folders = []
    for name, samples in (("a", 100), ("b", 99)):
        own = make_row("core.lora", 1.0)
        own["metrics"]["test"]["n"] = samples
        folders.append(write_run(tmp_path / name, own))
    assert compare(folders).warnings == ("a and b were scored on different numbers of test samples",)
    assert compare([folders[0], folders[0]]).warnings == ()


def test_data_drawn_by_the_seed_are_no_reason_to_warn(tmp_path: Path, write_run: Write) -> None:
    for seed in (0, 1):
        write_run(tmp_path / "a" / str(seed), seed=seed, fingerprint=f"f{seed}")
        write_run(tmp_path / "b" / str(seed), seed=seed, fingerprint=f"f{seed}", method="core.dora")
    assert compare([tmp_path / "a", tmp_path / "b"]).warnings == ()


def test_nothing_in_common_is_refused(tmp_path: Path, write_run: Write, make_row: Row) -> None:
    other = make_row("core.lora", 1.0, metrics={"test": {"wer": 3.0}})
    with pytest.raises(
        RunError, match=r"nothing to compare: a has test accuracy, .*; b has test wer|and b has test wer"
    ):
        compare([write_run(tmp_path / "a"), write_run(tmp_path / "b", other)])


def test_what_is_left_out_of_a_group(tmp_path: Path, write_run: Write) -> None:
    cell = tmp_path / "cell"
    write_run(cell / "seed0", seed=0, test=1.0, started="2026-03-01T00:00:00+00:00")
    write_run(cell / "again", seed=0, test=2.0, started="2026-03-02T00:00:00+00:00")
    write_run(cell / "seed1", seed=1, status="failed", error="x")
    write_run(cell / "seed2", seed=2, status="training")
    write_run(cell / "search" / "lr=1", seed=0, tested=False, train={"lr": 1.0})
    (cell / "half").mkdir()
    (cell / "half" / "record.json").write_text("{")
    found = compare([cell, write_run(tmp_path / "other", test=5.0)])
    assert found.groups[0].seeds == (0,) and found.groups[0].folders == (str(cell / "again"),)
    notes = " | ".join(found.notes)
    for text in (
        "seed1 is failed",
        "seed2 is unfinished",
        "search",
        "half/record.json is damaged",
        "is a newer run of seed 0",
    ):
        assert text in notes


def test_a_group_is_one_setting(tmp_path: Path, write_run: Write) -> None:
    write_run(tmp_path / "mixed" / "a", seed=0, options={"rank": 4})
    write_run(tmp_path / "mixed" / "b", seed=1, options={"rank": 8})
    with pytest.raises(RunError, match=r"holds runs of different settings \(method.rank\)"):
        compare([tmp_path / "mixed", write_run(tmp_path / "c")])


def test_a_default_that_one_run_does_not_name_is_no_difference(tmp_path: Path, write_run: Write) -> None:
    folders = [
        write_run(tmp_path / "a"),
        write_run(tmp_path / "b", options={"dropout": 0.0}, train={"clip": None}),
    ]
    assert [one.key for one in compare(folders).settings] == ["method.dropout"]
    assert compare(folders, get_registry(("all",))).settings == ()


def test_names_are_as_short_as_can_be(tmp_path: Path, write_run: Write) -> None:
    one, other = write_run(tmp_path / "lora" / "s0"), write_run(tmp_path / "dora" / "s0")
    assert [g.name for g in compare([one, other]).groups] == ["lora/s0", "dora/s0"]
    assert [g.name for g in compare([one, one]).groups] == ["s0 #1", "s0 #2"]


@pytest.mark.parametrize("which", ["one", "gone", "empty"])
def test_too_little_to_compare(tmp_path: Path, write_run: Write, which: str) -> None:
    run = write_run(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    folders = {"one": [run], "gone": [run, tmp_path / "gone"], "empty": [run, tmp_path / "empty"]}[which]
    messages = {"one": "needs at least two", "gone": "no run folder at", "empty": "holds no finished run"}
    with pytest.raises(RunError, match=messages[which]):
        compare(folders)
