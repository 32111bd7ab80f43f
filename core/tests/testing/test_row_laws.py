"""Rows to compare with: every law finds the fault planted for it alone; the sound pass."""

from __future__ import annotations

import pytest

from peftx.testing import RowLaws, check, laws_of

LAWS = [law.name for law in laws_of("row")]
#: fault -> what is said of it; the law that must find it is the fault's name, or its beginning
FAULTS = {
    "row_config": "the option noise has no description",
    "fits": "building it on a task that is nobody's raised AttributeError",
    "fits_wordy": "its refusal of rows.ranking is not one sentence",
    "fits_nowhere": "no task takes it: this row is for no task at all",
    "fits_named": "it names rows.ranking among its tasks, and refuses it",
    "built": "two builds from the same seed differ in first.bias",
    "built_shared": "the same model was given twice",
    "without_samples": "differ in first.bias",
    "without_samples_refused": "it cannot be built where the splits hold no sample",
    "trained": "declared trained, so its `fit` is never called",
    "trained_empty": "declared trained and has no parameter",
    "trained_unfitted": "gives its 1 parameters no values: write `fit`",
    "fit": "it gives no value for the parameter centre",
    "fit_nan": "the value of centre is not finite",
    "fit_foreign": "it gives a value for scale, which is no parameter",
    "fit_draws": "fitted again from the same seed, centre differs",
    "training_split": "centre is another where val and test hold other samples",
    "training_split_chooses": "where val and test hold no sample it raised DataError",
    "training_split_beside": "centre is another where val and test hold other samples",
    "answers": "what it gives on train is not finite",
    "answers_shape": "it raised",
    "own_answer": "the answers to the same samples alone and among 12",
    "steady": "two forwards on the same batch in evaluation mode differ",
    "steady_counts": "differ in calls",
    "gradients": "the loss does not depend on spare",
    "gradients_zero": "the gradients of all parameters are zero",
    "learns": "after 8 steps on it",
    "reload": "the answers of the model and of the one that was read back differ",
    "reload_buffer": "the answers of the model and of the one that was read back differ",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_row_is_found_by_its_law_alone(toys, fault):
    law = max((law for law in LAWS if fault.startswith(law)), key=len)
    report = check(f"rows.bad_{fault}")
    assert report.broken_laws == (law,), report.render()
    (found,) = report.failed
    assert FAULTS[fault] in found.message and "\n" not in found.message, found.message
    assert found.kind == "row"


@pytest.mark.parametrize(
    ("row", "skipped"),
    [
        ("lines", {"fit", "training_split"}),
        ("normed", {"fit", "training_split"}),
        ("means", {"gradients", "learns"}),
        ("first", {"trained", "fit", "training_split", "gradients", "learns", "reload"}),
    ],
)
def test_a_sound_row_keeps_every_law_there_is_for_it(toys, row, skipped):
    report = check(f"rows.{row}")
    assert report.ok, report.render()
    assert {one.law for one in report.of("skipped")} == skipped
    assert {one.law for one in report.of("passed")} == set(LAWS) - skipped


def test_a_fault_on_one_of_its_tasks_names_the_task(toys):
    report = check("rows.bad_gradients", laws=["gradients"])
    assert report.failed[0].message.startswith("on rows.sorting, the loss")


def test_a_row_whose_tasks_have_no_data_here_is_skipped_with_the_reason(toys):
    report = check("rows.asleep")
    assert report.ok
    reasons = {one.message for one in report.of("skipped")}
    assert reasons == {"rows.dreaming names no default data"}
    assert {one.law for one in report.of("passed")} == {"row_config"}


def test_options_and_known_failures_reach_a_row(toys):
    assert check("rows.lines", options={"hidden": 7}, laws=["built"]).ok
    known = check("rows.bad_learns", known={"learns": "it climbs"})
    assert known.ok and known.of("known")[0].message.startswith(
        "it climbs (on rows.sorting, the loss of a batch"
    )


def test_its_class_makes_one_test_a_law(toys):
    class Laws(RowLaws):
        row = "rows.means"

    planned = list(Laws()._plan())
    assert [one.label for one in planned] == LAWS
    assert [one.judge().state for one in planned if one.label in ("fit", "learns")] == ["passed", "skipped"]
