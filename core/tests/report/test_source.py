"""A run's folder is read whatever state it is in, as long as there is a record."""

from __future__ import annotations

import json

import pytest

from peftx.errors import RunError
from peftx.report import RunSource


def test_everything_is_read(make_run) -> None:
    source = RunSource.read(make_run())
    assert source.status == "complete" and source.split == "test" and source.primary == "accuracy"
    assert source.names == ["core.lora", "core.head", "core.full"]
    assert len(source.lines("core.lora", "step")) == 136
    assert [line["epoch"] for line in source.lines("core.head", "epoch")] == list(range(1, 9))
    assert sum(source.details["core.full"]["test"]["reliability"]["count"]) == 359
    assert source.config.startswith("seed = 0")


def test_a_line_a_process_was_killed_in_is_left_out(make_run) -> None:
    whole = '{"row": "core.lora", "event": "step", "step": 1, "loss": 2.0}\n'
    source = RunSource.read(make_run(metrics=whole + '{"row": "core.lora", "event": "st'))
    assert [line["loss"] for line in source.lines("core.lora", "step")] == [2.0]


def test_of_two_lines_for_one_step_the_later_counts_and_lines_come_in_order(make_run) -> None:
    lines = [(2, 1.5), (1, 2.0), (2, 1.0)]
    text = "\n".join(
        json.dumps({"row": "core.lora", "event": "step", "step": step, "loss": loss}) for step, loss in lines
    )
    found = RunSource.read(make_run(metrics=text)).lines("core.lora", "step")
    assert [(line["step"], line["loss"]) for line in found] == [(1, 2.0), (2, 1.0)]


@pytest.mark.parametrize("text", ["", "not json", "[1, 2]", '"a"', '{"no": "row"}', "\x00\xff"])
def test_metrics_that_are_nonsense_are_none(make_run, text: str) -> None:
    assert RunSource.read(make_run(metrics=text)).metrics == {}


def test_details_and_config_may_be_missing_or_damaged(make_run) -> None:
    folder = make_run(details=False)
    (folder / "config.toml").unlink()
    assert RunSource.read(folder).details == {} and RunSource.read(folder).config == ""
    for text in ("{", "[]", '{"rows": 3}', '{"rows": {"core.lora": 3}}'):
        (folder / "details.json").write_text(text)
        assert not any(RunSource.read(folder).details.values())


def test_a_run_without_test_scores_is_compared_on_validation(make_run, record) -> None:
    for row in record["rows"]:
        del row["metrics"]["test"]
    assert RunSource.read(make_run(record)).split == "val"


def test_a_row_under_way_has_a_name_too(make_run, record) -> None:
    record["rows"], record["status"] = [], "training"
    folder = make_run(record, metrics='{"row": "core.lora", "event": "step", "step": 1, "loss": 2.0}\n')
    assert RunSource.read(folder).names == ["core.lora"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "has no record.json, so there is nothing to report"),
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ('{"format": 99}', "was written by a later peftx (record format 99, this one reads 1)"),
    ],
)
def test_without_a_readable_record_one_sentence(tmp_path, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / "record.json").write_text(text)
    with pytest.raises(RunError, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        RunSource.read(tmp_path)


def test_no_folder(tmp_path) -> None:
    with pytest.raises(RunError, match="no run folder at"):
        RunSource.read(tmp_path / "nothing")
