from __future__ import annotations

import csv
import io
import json
import sys

import pytest


@pytest.fixture
def runs(toy, tmp_path, write_run, make_row):
    """Two boards: three methods on one, two of them on the other; one run failed."""
    root = tmp_path / "runs"
    for seed, lora, head in ((0, 97.0, 90.0), (1, 99.0, 90.0)):
        write_run(
            root / f"a{seed}",
            make_row("core.lora", lora),
            make_row("core.head", head, trainable=20),
            seed=seed,
        )
    write_run(root / "b", make_row("core.dora", 98.0, peak_memory_bytes=2**30))
    write_run(root / "c", method="core.full", status="failed", error="loss is NaN")
    data = {"name": "toy.far", "limit": 5}
    write_run(root / "d", make_row("core.lora", 50.0), make_row("core.dora", 60.0), data=data)
    return root


def test_a_table_for_each_board_and_the_mean_ranks(peftx, runs):
    status, out, err = peftx("leaderboard")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "toy.sorting on toy.far limit=5 with toy.net: test accuracy, % (higher is better):"
    second = lines.index("toy.sorting on toy.small with toy.net: test accuracy, % (higher is better):")
    assert lines[1].split()[:7] == ["rank", "method", "accuracy", "%", "sd", "n", "trainable"]
    rows = [line.split()[:5] for line in lines[second + 3 : second + 7]]
    assert rows == [
        ["1", "core.dora", "98.00", "-", "1"],
        ["1", "core.lora", "98.00", "1.41", "2"],
        ["3", "core.head", "90.00", "0.00", "2"],
        ["-", "core.full", "-", "-", "0"],
    ]
    assert "failed: core.full, 1 run: loss is NaN" in lines
    ranks = lines.index("mean rank over 2 boards, among the 2 rows that stand on all of them:")
    assert lines[ranks + 3].split() == ["core.dora", "1.00", "1", "1"]
    assert lines[ranks + 4].split() == ["core.lora", "1.50", "2", "1"]


def test_one_data_set_and_another_front(peftx, runs):
    def front(*arguments):
        (board,) = json.loads(peftx("leaderboard", "--data", "small", "--json", *arguments)[1])["boards"]
        return {s["label"] for s in board["standings"] if s["pareto"]}

    assert front() == {"core.lora", "core.dora", "core.head"}
    assert front("--pareto", "memory") == {"core.lora"}
    for name in ("far", "toy.far", "toy.far limit=5"):
        assert len(json.loads(peftx("leaderboard", "--data", name, "--json")[1])["boards"]) == 1


def test_by_rank_alone(peftx, runs):
    status, out, _ = peftx("leaderboard", "--by-rank")
    assert status == 0 and out.startswith("mean rank over 2 boards") and "rank  method  accuracy" not in out
    rows = list(csv.DictReader(io.StringIO(peftx("leaderboard", "--by-rank", "--csv")[1])))
    assert rows == [{"label": "core.dora", "rank": "1.0"}, {"label": "core.lora", "rank": "1.5"}]
    status, out, err = peftx("leaderboard", "--by-rank", "--data", "far")
    assert status == 0 and "mean ranks need two boards" in err and "core.lora" in out


def test_csv_has_one_line_a_row(peftx, runs):
    rows = list(csv.DictReader(io.StringIO(peftx("leaderboard", "--csv")[1])))
    assert len(rows) == 6
    lora = next(row for row in rows if row["data"] == "toy.small" and row["method"] == "core.lora")
    assert (lora["rank"], lora["mean"], lora["n"], lora["split"], lora["lr"]) == (
        "1",
        "98.0",
        "2",
        "test",
        "0.01",
    )


def test_another_metric_says_its_direction(peftx, runs):
    out = peftx("leaderboard", "--metric", "loss", "--data", "far")[1]
    assert "test loss (lower is better)" in out
    out = peftx("leaderboard", "--metric", "loss", "--data", "far", "--higher-is-better")[1]
    assert "test loss (higher is better)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tyo"], "error: no run here is of a domain called 'tyo'. Did you mean toy? There are: toy."),
        (["--data", "smal"], "error: no run here is of a data set called 'smal'. Did you mean small"),
        (["--model", "x"], "error: no run here is of a model called 'x'. There are: toy.net."),
        (["--metric", "los"], "error: no run here has a metric called 'los'. Did you mean loss?"),
        (["--lower-is-better"], "error: --higher-is-better and --lower-is-better are about --metric"),
        (["--pareto", "size"], "error: Invalid value for '--pareto'"),
        (["--csv", "--json"], "error: --csv and --json: choose one"),
    ],
)
def test_mistakes_cost_one_sentence(peftx, runs, arguments, message):
    status, out, err = peftx("leaderboard", *arguments)
    assert status == 2 and out == "" and err.startswith(message) and err.count("\n") == 1


def test_no_runs_is_a_note(peftx, toy, tmp_path):
    (tmp_path / "runs").mkdir()
    assert peftx("leaderboard") == (0, "", "there is no finished run in runs yet\n")
    assert json.loads(peftx("leaderboard", "--json")[1])["boards"] == []


SUITE = """
from peftx.config.suite import Suite
QUICK = Suite(task="toy.sorting", about="a test", data=["toy.small"], published=[
    {"method": "Theirs", "data": "toy.small", "value": 99.5, "source": "A paper, table 1"}])
"""


def test_published_rows_come_from_suites_when_asked_for(peftx, runs, toy):
    (toy / "toy_suites.py").write_text(SUITE)
    plugin = (
        (toy / "toy_plugin.py").read_text().replace("import CommandSpec", "import SuiteSpec, CommandSpec")
    )
    plugin += (
        '\n@hookimpl\ndef peftx_suites():\n    yield SuiteSpec("toy.quick", "quick", "toy_suites:QUICK")\n'
    )
    plugin += '    yield SuiteSpec("toy.bad", "broken", "toy_suites:GONE")\n'
    (toy / "toy_plugin.py").write_text(plugin)
    status, out, err = peftx("leaderboard", "--published", "--data", "small")
    sys.modules.pop("toy_suites", None)
    theirs = next(line for line in out.splitlines() if "Theirs" in line)
    assert (
        status == 0 and theirs.split()[:3] == ["-", "Theirs", "99.50"] and theirs.endswith("A paper, table 1")
    )
    assert "the suite toy.bad cannot be read" in err
    assert "Theirs" not in peftx("leaderboard")[1]
