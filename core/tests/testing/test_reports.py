"""Known failures, reports, and the laws as pytest tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from peftx.errors import ConfigError, UnknownNameError
from peftx.testing import LawError, Outcome, Report, check, laws_of, settle
from peftx.testing.lawbook import KINDS

PYTEST = """
import peftx.testing as kit

class Merge(kit.MethodLaws):
    method = "kit.merge"
    cases = ("linear",)
    laws = ("merge", "effect", "unbound", "counts")

class TestBroken(Merge):
    pass

class TestKnown(Merge):
    known = {"merge": "the bias is next"}

class TestMended(Merge):
    known = {("effect", "linear"): "once broken"}

class TestData(kit.DatasetLaws):
    dataset = "kit.points"
    laws = ("indexing",)

class TestTask(kit.TaskLaws):
    task = "kit.sorting"
    laws = ("recipes",)

class TestModel(kit.ModelLaws):
    model = "kit.net"
    laws = ("head",)

class TestPlugin(kit.PluginLaws):
    domain = "kit"
    laws = ("own_names", "effect")

@kit.parametrize_method_laws(["core.lora", "core.head"], laws=["counts"], cases=["linear"])
def test_several(judged):
    kit.settle(judged())
"""


def test_a_known_failure_is_shown_with_its_reason_and_fails_nothing(toys):
    report = check(
        "kit.merge", laws=["merge", "effect"], cases=["linear"], known={"merge": "the bias is next"}
    )
    assert report.ok and not report.failed and not report.broken_laws
    (one,) = report.of("known")
    assert one.message.startswith("the bias is next (the merged model")
    assert "known   kit.merge: merge on linear: the bias is next" in report.render()


@pytest.mark.parametrize("known", [{"effect": "once broken"}, {("effect", "linear"): "once broken"}])
def test_a_known_failure_that_holds_is_reported(toys, known):
    report = check("kit.gain", laws=["effect"], cases=["linear"], known=known)
    (one,) = report.failed
    assert one.state == "mended" and "once broken" in one.message and "take it off the list" in one.message
    assert not report.ok and report.broken_laws == ()


def test_a_whole_law_that_fails_somewhere_is_no_mended_one(toys):
    report = check(
        "kit.every_site", laws=["every_site"], cases=["linear", "embedding"], known={"every_site": "x"}
    )
    assert {one.case: one.state for one in report.outcomes} == {"linear": "known", "embedding": "passed"}
    assert report.ok


def test_a_thing_declares_its_own_known_failures(toys, monkeypatch):
    from kit_toys_broken import Merge

    monkeypatch.setattr(Merge, "known_failures", {("merge", "linear"): "said by the class"}, raising=False)
    report = check("kit.merge", laws=["merge"], cases=["linear"])
    assert [one.state for one in report.outcomes] == ["known"]


def test_what_fails_for_a_deeper_reason_is_not_held_against_a_thing_twice(toys):
    report = check("kit.forward", laws=["forward", "merge"], cases=["linear"])
    assert report.broken_laws == ("forward",)
    (skipped,) = report.of("skipped")
    assert (skipped.law, skipped.message) == ("merge", "not judged while forward fails")


def test_a_method_by_its_class_and_with_options():
    from peftx.adapters.methods.lora import LoRA

    report = check(LoRA, options={"rank": 3}, laws=["counts", "save_load", "kinds"], cases=["linear"])
    assert {one.law: one.state for one in report.outcomes} == {
        "kinds": "passed",
        "counts": "passed",
        "save_load": "skipped",  # a file names its method
    }
    with pytest.raises(ConfigError, match="rank: must be at least 1"):
        check("core.lora", options={"rank": 0})


def test_names_that_lead_nowhere():
    with pytest.raises(UnknownNameError, match=r"Did you mean core.lora"):
        check("core.lroa")
    with pytest.raises(UnknownNameError, match=r"Did you mean linear"):
        check("core.lora", cases=["linaer"])


def test_a_report_is_plain_data_and_a_table():
    outcomes = [
        Outcome("method", "a.b", "effect", "It shows.", "linear", "passed", seconds=0.5),
        Outcome("method", "a.b", "effect", "It shows.", "conv2d", "failed", "it does not", trace="Traceback"),
        Outcome("method", "a.b", "merge", "It merges.", "linear", "skipped", "does not merge"),
        Outcome("method", "a.b", "merge", "It merges.", "conv2d", "skipped", "does not merge"),
    ]
    report = Report(tuple(outcomes))
    data = json.loads(json.dumps(report.to_dict()))
    assert data["counts"] == {"passed": 1, "failed": 1, "known": 0, "mended": 0, "skipped": 2}
    assert data["ok"] is False and "trace" not in data["outcomes"][1]
    text = report.render()
    assert "FAILED  a.b: effect on conv2d: it does not" in text
    assert "skipped a.b: merge on linear, conv2d: does not merge" in text
    assert report.verdict == "1 passed, 1 failed, 2 skipped: effect to be mended"
    assert not Report(()).ok


def test_every_law_demands_one_sentence_and_names_are_unique():
    for kind in KINDS:
        laws = laws_of(kind)
        assert laws and len({law.name for law in laws}) == len(laws)
        for law in laws:
            assert (
                law.demands.endswith(".")
                and law.demands[0] in "`ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                and len(law.demands) < 120
            )
            assert set(law.needs) <= {other.name for other in laws}


def test_a_verdict_is_pytests(toys):
    blank = {"kind": "method", "name": "a.b", "law": "effect", "demands": "It shows.", "case": "linear"}
    settle(Outcome(**blank, state="passed"))
    with pytest.raises(pytest.fail.Exception, match=r"effect on linear: it does not\nThe law: It shows\."):
        settle(Outcome(**blank, state="failed", message="it does not"))
    with pytest.raises(pytest.skip.Exception, match="no schedule"):
        settle(Outcome(**blank, state="skipped", message="no schedule"))
    assert issubclass(LawError, AssertionError)


def test_as_pytest_tests(tmp_path):
    (tmp_path / "test_mine.py").write_text(PYTEST)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        "--rootdir",
        ".",
    ]
    done = subprocess.run(
        [*command, "test_mine.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent / "toys")},
        capture_output=True,
        text=True,
        check=False,
    )
    found = {
        (state, place.partition("::")[2])
        for state, place in re.findall(r"^(PASSED|FAILED|XFAIL) (\S+)", done.stdout, re.M)
    }
    broken = {("PASSED", "counts"), ("PASSED", "effect"), ("FAILED", "merge")}
    known = {("PASSED", "counts"), ("PASSED", "effect"), ("XFAIL", "merge")}
    mended = {("PASSED", "counts"), ("FAILED", "effect"), ("FAILED", "merge")}
    assert found == {
        *((state, f"TestBroken::test_law[{law}-linear]") for state, law in broken),
        *((state, f"TestKnown::test_law[{law}-linear]") for state, law in known),
        *((state, f"TestMended::test_law[{law}-linear]") for state, law in mended),
        ("PASSED", "TestData::test_law[indexing]"),
        ("PASSED", "TestTask::test_law[recipes]"),
        ("PASSED", "TestModel::test_law[head]"),
        ("PASSED", "TestPlugin::test_law[own_names]"),
        ("PASSED", "test_several[core.lora-counts-linear]"),
        ("PASSED", "test_several[core.head-counts-linear]"),
    }, done.stdout + done.stderr
    assert "the merged model and the adapted one: they differ by" in done.stdout
    assert "The law: The model with the effective weights written in" in done.stdout


def test_checking_needs_no_pytest():
    program = "import sys; sys.modules['pytest'] = None; import peftx.testing as t; "
    program += "assert t.check('core.lora', laws=['counts'], cases=['linear']).ok"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
