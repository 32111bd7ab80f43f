from __future__ import annotations

import csv
import io
import json
import sqlite3
import time

import pytest


@pytest.fixture
def runs(toy, tmp_path, write_run, make_row):
    """Three runs below ./runs, the first with a baseline."""
    write_run(
        tmp_path / "runs" / "a",
        make_row("core.lora", 97.5, val=96.0),
        make_row("core.head", 90.0, trainable=20),
        started="2026-03-01T10:00:00+00:00",
    )
    write_run(
        tmp_path / "runs" / "b",
        method="core.dora",
        test=98.0,
        seed=1,
        started="2026-03-02T10:00:00+00:00",
        data={"limit": 100},
    )
    write_run(
        tmp_path / "runs" / "c",
        method="core.full",
        status="failed",
        error="loss is NaN",
        started="2026-03-03T10:00:00+00:00",
    )
    return tmp_path / "runs"


def test_one_line_a_row_newest_first(peftx, runs):
    status, out, err = peftx("results")
    assert (status, err) == (0, "")
    head, _, *rows = out.splitlines()
    assert " ".join(head.split()) == (
        "run started status method data model seed val accuracy % test accuracy % trainable time"
    )
    assert [" ".join(row.split()) for row in rows] == [
        "runs/c 2026-03-03 10:00 failed core.full toy.small limit=none toy.net 0 - - - -",
        "runs/b 2026-03-02 10:00 complete core.dora toy.small limit=100 toy.net 1 98.00 98.00 1,000 2.5 s",
        "runs/a 2026-03-01 10:00 complete core.lora toy.small limit=none toy.net 0 96.00 97.50 1,000 2.5 s",
        "runs/a 2026-03-01 10:00 complete core.head (baseline) toy.small limit=none toy.net 0 90.00 90.00 20 2.5 s",
    ]


def test_rows_can_be_chosen_sorted_and_cut(peftx, runs):
    def names(*arguments):
        return [row["method"] for row in json.loads(peftx("results", "--json", *arguments)[1])["rows"]]

    assert names("--where", "test>=97", "--sort", "-test") == ["core.dora", "core.lora"]
    assert names("--where", "test>=97", "--where", "seed=0") == ["core.lora"]
    assert names("--sort", "trainable,-seed", "--limit", "2") == ["core.head", "core.dora"]
    assert names("--where", "status=failed") == ["core.full"]


def test_json_has_everything(peftx, runs):
    found = json.loads(peftx("results", "--json", "--where", "method=core.lora")[1])
    (row,) = found["rows"]
    assert (row["folder"], row["test"], row["val"], row["baseline"]) == ("runs/a", 97.5, 96.0, False)
    assert row["metrics"]["test"]["loss"] == 0.25 and row["settings"]["option"]["rank"] == 8
    assert found["root"] == "runs" and found["skipped"] == [] and found["notes"] == []


def test_csv_is_read_by_any_reader(peftx, runs):
    status, out, _ = peftx("results", "--csv", "--sort", "run")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert status == 0 and [row["method"] for row in rows] == [
        "core.lora",
        "core.head",
        "core.dora",
        "core.full",
    ]
    assert rows[0]["test"] == "97.5" and rows[1]["baseline"] == "yes" and rows[3]["test"] == ""
    assert rows[3]["error"] == "loss is NaN"


def test_tables_of_several_metrics_name_them(peftx, runs, write_run):
    write_run(runs / "d", primary="loss", units={})
    head = peftx("results")[1].splitlines()[0].split()
    assert head[head.index("seed") + 1 :] == ["metric", "val", "test", "trainable", "time"]


def test_broken_runs_are_told_at_the_end(peftx, runs):
    (runs / "a" / "record.json").write_text('{"format": 1,')
    status, out, err = peftx("results")
    assert status == 0 and "runs/b" in out and "runs/a" not in out
    assert err.startswith("skipped: runs/a: runs/a/record.json is damaged: ") and err.count("\n") == 1
    (skipped,) = json.loads(peftx("results", "--json")[1])["skipped"]
    assert skipped["folder"] == "runs/a" and "is damaged" in skipped["cause"]


def test_folders_inside_and_outside_the_root(peftx, runs, write_run, tmp_path):
    write_run(tmp_path / "elsewhere" / "x", test=1.0)
    assert [row["folder"] for row in json.loads(peftx("results", "runs/b", "--json")[1])["rows"]] == [
        "runs/b"
    ]
    found = json.loads(peftx("results", "elsewhere", "runs/b", "--json", "--sort", "test")[1])
    assert [row["folder"] for row in found["rows"]] == ["elsewhere/x", "runs/b"]
    assert not (tmp_path / "elsewhere" / ".index.sqlite").exists()
    assert peftx("results", "gone") == (2, "", "error: no run folder at gone\n")


def test_another_root(peftx, runs, monkeypatch, tmp_path):
    (tmp_path / "runs").rename(tmp_path / "others")
    status, _, err = peftx("results")
    assert status == 2 and err.startswith(
        "error: the folder of runs runs is not there: `peftx run` makes one"
    )
    assert "others/a" in peftx("results", "--root", "others")[1]
    monkeypatch.setenv("PEFTX_RUNS", "others")
    assert "others/a" in peftx("results")[1]


def test_nothing_found_is_a_note(peftx, runs, tmp_path):
    assert peftx("results", "--where", "method=nobody") == (0, "", "no run of runs fulfils that\n")
    (tmp_path / "empty").mkdir()
    assert peftx("results", "--root", "empty") == (0, "", "there is no run in empty yet\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "methd=x"], "error: --where 'methd=x': no run here has 'methd'. Did you mean method?"),
        (["--sort", "nope"], "error: --sort nope: no run here has 'nope'."),
        (["--limit", "0"], "error: Invalid value for '--limit': 0 is not in the range x>=1"),
        (["--csv", "--json"], "error: --csv and --json: choose one"),
    ],
)
def test_mistakes_cost_one_sentence(peftx, runs, arguments, message):
    status, out, err = peftx("results", *arguments)
    assert status == 2 and out == "" and err.startswith(message) and err.count("\n") == 1


def test_a_later_index_is_rebuilt_on_request(peftx, runs):
    peftx("results")
    connection = sqlite3.connect(runs / ".index.sqlite")
    connection.execute("PRAGMA user_version = 7")
    connection.commit()
    connection.close()
    status, _, err = peftx("results")
    assert status == 2 and "rebuild it with `peftx results --rebuild --root runs`" in err
    assert peftx("results", "--rebuild", "--root", "runs")[0] == 0
    assert peftx("results")[0] == 0


@pytest.mark.slow
def test_a_thousand_runs_take_less_than_a_second_of_processor_time(peftx, runs, write_run):
    for number in range(1000):
        write_run(runs / f"x{number}", seed=number, options={"rank": 1 + number % 7})
    peftx("results")
    before = time.process_time()
    status, out, _ = peftx("results", "--where", "option.rank=3")
    assert status == 0 and len(out.splitlines()) == 2 + 143
    assert time.process_time() - before < 1.0
