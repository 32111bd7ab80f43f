"""`peftx bench`: what is typed, what is refused in one sentence, what a dry run shows; torch-free until it trains."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest

SUITE = """
task = "toy.sorting"
about = "Things, sorted."
methods = ["core.lora", "core.head"]
seeds = 2
rates = [0.01, 0.1]

[train]
epochs = 3

[[data]]
name = "toy.small"

[[data]]
name = "toy.small"
limit = 2
train = {epochs = 1}
"""


@pytest.fixture
def suite(toy, tmp_path):
    (tmp_path / "mine.toml").write_text(SUITE)
    return "mine.toml"


def test_a_dry_run_shows_the_grid_and_writes_nothing(peftx, suite, tmp_path):
    status, out, err = peftx("bench", suite, "--dry-run")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "mine: Things, sorted."
    assert [line.split()[:2] for line in lines[4:8]] == [
        ["core.lora", "toy.small"],
        ["core.head", "toy.small"],
        ["core.lora", "toy.small"],
        ["core.head", "toy.small"],
    ]
    assert "train on toy.small: epochs=3" in lines and "train on toy.small limit=2: epochs=1" in lines
    assert lines[-1] == "8 cells, 0 of them settled; folder runs/bench/mine"
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_as_json(peftx, suite):
    status, out, _ = peftx(
        "bench", suite, "--dry-run", "--json", "--search", "lr", "--seeds", 4, "--methods", "head"
    )
    found = json.loads(out)
    assert status == 0 and found["cells"] == 2 * (2 + 4)
    assert found["protocol"]["search"] == [0.01, 0.1]
    assert [(row["method"], row["seeds"], row["cells"]) for row in found["rows"]] == [
        ("core.head", 4, {"waiting": 6}),
        ("core.head", 4, {"waiting": 6}),
    ]


def test_a_dry_run_of_a_search_over_two_settings(peftx, suite):
    words = ["--search", "lr", "--search", "weight_decay=0,1e-4", "--methods", "head", "--data", "small"]
    status, out, err = peftx("bench", suite, "--dry-run", *words)
    assert (status, err) == (0, ""), err
    assert "search: lr=[0.01, 0.1], weight_decay=[0.0, 0.0001]" in out
    assert out.splitlines()[-1].startswith("6 cells")


def test_parts_of_a_suite_and_things_beside_it(peftx, suite):
    words = ["--data", "small limit=3,small", "--methods", "lora rank=2", "--methods", "toy.scale, head"]
    found = json.loads(peftx("bench", suite, "--dry-run", "--json", *words)[1])
    assert [(row["method"], row["data"]) for row in found["rows"]] == [
        (method, data)
        for data in ("toy.small limit=3", "toy.small")
        for method in ("core.lora rank=2", "toy.scale", "core.head")
    ]


@pytest.mark.parametrize(
    "words",
    [
        ["--train.epochs", "7", "mine.toml", "--no-efficiency", "--data", "small"],
        ["mine.toml", "--data=small", "--train.epochs=7"],
        ["--epochs", "7", "--data", "small", "--", "mine.toml"],
    ],
)
def test_options_of_training_stand_anywhere(peftx, suite, words):
    found = json.loads(peftx("bench", "--dry-run", "--json", *words)[1])
    assert {row["train"]["epochs"] for row in found["rows"]} == {7}
    assert found["protocol"]["train"] == {"epochs": 7}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "name a suite, such as `peftx bench vision/quick`"),
        ("mine.toml other.toml", "one suite is expected, got mine.toml other.toml"),
        ("gone.toml", "no configuration file at gone.toml"),
        ("toy/quick", "no suite is called 'toy.quick'. None is installed"),
        ("toy", "toy is a domain, a suite is part of one: it has no suite"),
        ("vision/quick", "vision.quick belongs to the pack vision, which is not installed: get it with"),
        ("speech/x", "speech.x belongs to the pack speech, which is not installed: peftx-speech is planned"),
        ("mine.toml --seeds 0", "Invalid value for '--seeds': 0 is not in the range x>=1"),
        ("mine.toml --seeds few", "Invalid value for '--seeds': 'few' is not a valid integer"),
        ("mine.toml --jobs 0", "Invalid value for '--jobs': 0 is not in the range x>=1"),
        ("mine.toml --threads -1", "Invalid value for '--threads': -1 is not in the range x>=1"),
        (
            "mine.toml --executor slurm",
            "Invalid value for '--executor': 'slurm' is not one of 'local', 'ray'",
        ),
        (
            "mine.toml --budget many",
            "--budget: a budget is a number of trainable parameters: write params=50000",
        ),
        ("mine.toml --budget params=x", "--budget: a budget is a number of trainable parameters"),
        ("mine.toml --search rank=1,2", "--search: only the learning rate is searched"),
        ("mine.toml --search lr=fast", "--search: a learning rate is a number above 0 (got fast)"),
        (
            "mine.toml --search lr --search lr=0.1",
            "--search lr stands there twice: give all its values at once",
        ),
        ("mine.toml --search weight_decay", "--search weight_decay goes with --search lr"),
        ("mine.toml --search lr --lr 0.1", "--search lr and --train.lr 0.1: one searches"),
        ("mine.toml --methods ,", "--methods names nothing: write names, separated by commas"),
        ("mine.toml --methods core.lroa", "no method is called 'core.lroa'. Did you mean core.lora"),
        (
            "mine.toml --methods toy.ctc",
            "toy.ctc trains with the objective ctc, and toy.sorting offers supervised",
        ),
        ("mine.toml --methods 'lora rank=0'", "--method.rank: must be at least 1 (got 0)"),
        ("mine.toml --data toy.smal", "no data set is called 'toy.smal'. Did you mean toy.small"),
        ("mine.toml --data toy.far", "toy.far is not under"),
        ("mine.toml --model toy.nett", "no model is called 'toy.nett'. Did you mean toy.net"),
        ("mine.toml --train.epochs 0", "--train.epochs: must be at least 1 (got 0)"),
        ("mine.toml --train.epcohs 1", "--train.epcohs: no such option. Did you mean --train.epochs"),
        ("mine.toml --methds lora", "--methds: no such option. Did you mean --methods"),
        ("mine.toml --seed 3", "--seed: no such option. Did you mean --seeds"),
        ("mine.toml --device gpu", "--device: must be auto, cpu, cuda, cuda:N or mps (got gpu)"),
        ("mine.toml --out mine.toml", "--out mine.toml is a file; name a folder"),
        ("mine.toml --out full", "--out full is not empty and no bench: name a new or an empty folder"),
    ],
)
def test_mistakes_are_one_sentence(peftx, suite, tmp_path, words, message):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    status, out, err = peftx("bench", *shlex.split(words))
    assert (status, out) == (2, ""), err
    assert err.startswith(f"error: {message}"), err
    assert "Traceback" not in err and len(err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_suite_file_with_mistakes_names_them_all(peftx, suite, tmp_path):
    (tmp_path / "mine.toml").write_text(SUITE.replace("seeds = 2", "seeds = 0\ncolour = 1"))
    status, _, err = peftx("bench", suite)
    assert status == 2
    assert err.splitlines() == [
        "error: mine.toml: --seeds: must be at least 1 (got 0)",
        "error: mine.toml: --colour: no such option.",
    ]


def test_the_help_shows_its_options_and_those_it_passes_on(peftx, toy):
    status, out, err = peftx("bench", "--help")
    assert (status, err) == (0, "")
    for expected in (
        "--methods",
        "--budget params=N",
        "--search lr",
        "--train.epochs INT",
        "--precision",
        "Examples:",
    ):
        assert expected in out


PROGRAM = """
import json, sys
from peftx.plugins import api
api.ENTRY_POINT_GROUP = "peftx.plugins.of_this_test"
from peftx.cli import main
status = main(sys.argv[1:])
print("\\n" + json.dumps([status, sorted(sys.modules)]), file=sys.stderr)
"""


@pytest.mark.parametrize("words", ["--help", "mine.toml --dry-run", "mine.toml --search lr --dry-run --json"])
def test_torch_is_not_imported_before_anything_trains(suite, toy, tmp_path, words):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "bench", *words.split()],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(toy), *sys.path])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    status, names = json.loads(done.stderr.splitlines()[-1])
    assert status == 0, done.stderr
    assert not {"torch", "numpy", "accelerate", "ray", "rich", "sqlite3"} & set(names)


def test_info_of_a_suite(peftx, toy):
    plugin = toy / "toy_plugin.py"
    plugin.write_text(
        plugin.read_text()
        + """
from peftx.plugins import SuiteSpec

@hookimpl
def peftx_suites():
    yield SuiteSpec("toy.quick", "things, quickly", "toy_suite:QUICK")
"""
    )
    (toy / "toy_suite.py").write_text(
        "from peftx.config.suite import Suite\n"
        'QUICK = Suite(task="toy.sorting", about="Things, sorted.", '
        'data=({"name": "toy.small", "limit": 2, "train": {"epochs": 1}, "search": {"limit": 3}},), '
        'published=tuple({"method": f"M{n}", "data": "toy.small limit=2", "value": n, "source": "a book"} '
        "for n in range(21)))\n"
    )
    status, out, err = peftx("info", "toy/quick")
    assert (status, err) == (0, "")
    assert out.splitlines()[:2] == ["toy.quick (suite): things, quickly", "  Things, sorted."]
    assert "toy.small limit=2 (epochs 1, search with limit 3)" in out and "peftx bench toy/quick" in out
    assert "21 scores; --json has them all" in out
    assert len(json.loads(peftx("info", "quick", "--json")[1])[0]["published"]) == 21
    assert json.loads(peftx("info", "quick", "--json")[1])[0]["seeds"] == 3
    assert "things, quickly" in peftx("list", "toy")[1]
    assert peftx("bench", "toy/quick", "--dry-run")[0] == 0


def test_settings_that_all_data_sets_share_are_told_once(peftx, suite):
    words = ["--data", "small,small limit=3", "--search", "lr", "--epochs", "7"]
    out = peftx("bench", suite, "--dry-run", *words)[1]
    assert [line for line in out.splitlines() if line.startswith("train on")] == [
        "train on all 2 data sets: epochs=7"
    ]
