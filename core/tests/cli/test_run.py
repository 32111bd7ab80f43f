from __future__ import annotations

import dataclasses
import json
import tomllib

import pytest

from peftx.config.run import RunConfig
from peftx.report.table import Column, Table


def test_dry_run_prints_the_resolved_configuration_as_toml(peftx):
    status, out, err = peftx(
        "run", "toy", "--start", "2", "--lr", "1e-3", "--limit", "7", "--seed", "3", "--dry-run"
    )
    assert (status, err) == (0, "")
    run = tomllib.loads(out)
    assert run["task"] == {"name": "toy.sorting", "order": "up"}
    assert run["method"] == {"name": "toy.scale", "start": 2.0, "names": ["mlp"], "bias": False}
    assert run["data"] == {"name": "toy.small", "limit": 7}
    assert run["model"] == {"name": "toy.net"}
    assert (run["seed"], run["train"]["lr"], run["train"]["epochs"]) == (3, 1e-3, 10)
    assert run["baselines"] == ["core.head"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["toy.scale"],
        ["scale"],
        ["toy.sorting"],
        ["sorting"],
        ["toy", "--method", "scale"],
        ["--task", "toy", "--method", "toy.scale"],
        ["--data", "toy.small", "--method", "scale"],
    ],
)
def test_the_same_run_said_in_many_ways(peftx, arguments):
    status, out, err = peftx("run", *arguments, "--dry-run")
    assert status == 0, err
    run = tomllib.loads(out)
    assert (run["task"]["name"], run["method"]["name"]) == ("toy.sorting", "toy.scale")


def test_a_core_method_takes_the_task_of_the_data(peftx):
    status, out, _ = peftx("run", "core.lora", "--data", "toy.small", "--dry-run", "--json")
    assert status == 0 and json.loads(out)["task"]["name"] == "toy.sorting"


def test_a_folder_given_after_the_colon(peftx):
    status, out, err = peftx("run", "toy", "--data", "folder:pictures", "--dry-run")
    assert status == 0, err
    assert tomllib.loads(out)["data"]["name"].startswith("toy.folder:")


def test_a_free_model_name_with_options_of_its_own(peftx):
    status, out, err = peftx("run", "toy", "--model", "free_net", "--no-pretrained", "--dry-run")
    assert status == 0, err
    assert tomllib.loads(out)["model"] == {"name": "free_net", "pretrained": False}


def test_a_file_may_give_a_section_by_its_name_alone(peftx, tmp_path):
    (tmp_path / "run.toml").write_text('task = "toy"\nmethod = "core.lora"\nbaselines = "none"\n')
    status, out, err = peftx("run", "--config", "run.toml", "--rank", "3", "--dry-run")
    assert (status, err) == (0, "")
    run = tomllib.loads(out)
    assert (run["method"]["name"], run["method"]["rank"], run["baselines"]) == ("core.lora", 3, [])


def test_flags_win_over_the_file_and_the_file_over_defaults(peftx, tmp_path):
    (tmp_path / "run.toml").write_text(
        'seed = 5\n[task]\nname = "toy"\n[method]\nname = "scale"\nstart = 3\nbias = true\n[train]\nepochs = 2\n'
    )
    status, out, err = peftx("run", "--config", "run.toml", "--start", "4", "--dry-run")
    assert (status, err) == (0, "")
    run = tomllib.loads(out)
    assert run["method"] == {"name": "toy.scale", "start": 4.0, "names": ["mlp"], "bias": True}
    assert (run["seed"], run["train"]["epochs"], run["train"]["batch_size"]) == (5, 2, 32)


def test_options_of_a_file_for_another_method_are_left_out_with_a_note(peftx, tmp_path):
    (tmp_path / "run.toml").write_text('[task]\nname = "toy"\n[method]\nname = "scale"\nstart = 3\n')
    status, out, err = peftx("run", "toy", "--config", "run.toml", "--method", "core.head", "--dry-run")
    assert status == 0
    assert err == "start in [method] of run.toml are for scale and left out for core.head\n"
    assert tomllib.loads(out)["method"]["name"] == "core.head"


def test_a_resolved_configuration_reads_back_to_itself(peftx, tmp_path):
    _, first, _ = peftx("run", "toy", "--start", "2", "--names", "none", "--dry-run")
    (tmp_path / "again.toml").write_text(first)
    status, second, err = peftx("run", "--config", "again.toml", "--dry-run")
    assert (status, err) == (0, "") and second == first


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["toi"], ["no domain, task or method is called 'toi'. Did you mean toy? See `peftx list`."]),
        (["toy", "--strat", "1"], ["--strat: no such option. Did you mean --start, --track?"]),
        (["toy", "--start", "-1"], ["--start: must be greater than 0 (got -1)"]),
        (["toy", "--method.start", "x"], ["--method.start: must be a number (got x)"]),
        (
            ["toy", "--start", "0", "--lr", "0", "--device", "gpu"],
            [
                "--start: must be greater than 0 (got 0)",
                "--lr: must be greater than 0 (got 0)",
                "--device: must be auto, cpu, cuda, cuda:N or mps (got gpu)",
            ],
        ),
        (["toy", "--method", "lorra"], ["no method is called 'lorra'. Did you mean core.lora, core.rslora"]),
        (["toy", "--data", "smal"], ["no data set is called 'smal'. Did you mean toy.small?"]),
        (
            ["toy", "--data", "cifar10"],
            ["cifar10 belongs to the pack vision, which is not installed: get it with `pip install"],
        ),
        (["toy", "--data", "folder"], ["data set folder needs a path: write folder:PATH"]),
        (["toy", "--model", "nett"], ["no model is called 'nett'. Did you mean toy.net?"]),
        (["toy", "--model.depth", "3"], ["--model.depth: no such option."]),
        (["toy", "--mehtod", "scale"], ["--mehtod: no such option. Did you mean --method?"]),
        (["toy", "--confg", "run.toml"], ["--confg: no such option. Did you mean --config?"]),
        (
            ["toy", "--method", "core.lora", "--rank-pattern", "((=4"],
            ["--rank-pattern: (( is not a regular expression, missing ), unterminated subpattern"],
        ),
        (
            ["toy", "--method", "core.lora", "--alpha-pattern", "qkv=-3"],
            ["--alpha-pattern: must be greater than 0 (got -3)"],
        ),
        (["toy", "--lr", "inf"], ["--lr: must be finite (got inf)"]),
        (["toy", "--method", "core.lora", "--alpha", "nan"], ["--alpha: must be finite (got nan)"]),
        (["vision.snella"], ["vision.snella belongs to the pack vision, which is not installed"]),
        (
            ["toy.scale", "--method", "core.lora"],
            ["two methods: toy.scale as the target and core.lora by --method"],
        ),
        (["toy", "more"], ["one target is expected, got toy more"]),
        (
            ["core.lora"],
            ["core.lora fits many domains: name one, such as `peftx run toy --method core.lora`"],
        ),
        (["core"], ["core has methods but no task"]),
        (["--seed", "1"], ["no target: name a domain, a task or a method, such as `peftx run toy`"]),
        (
            ["toy", "--method", "ctc"],
            ["toy.ctc trains with the objective ctc, and toy.sorting offers supervised"],
        ),
        (["toy", "--config", "gone.toml"], ["no configuration file at gone.toml"]),
        (["toy", "--dry-run=1"], ["--dry-run takes no value"]),
        (["toy", "--data"], ["--data needs a value"]),
    ],
)
def test_what_cannot_be_run_is_said_in_one_line_each(peftx, arguments, lines):
    status, out, err = peftx("run", *arguments)
    assert (status, out) == (2, "")
    found = err.splitlines()
    assert len(found) == len(lines)
    for line, expected in zip(found, lines, strict=True):
        assert line.startswith(f"error: {expected}")


def test_errors_in_a_file_name_the_file(peftx, tmp_path):
    (tmp_path / "run.toml").write_text(
        'sed = 1\n[method]\nname = "scale"\nstart = -1\n[train]\nlr = "fast"\n'
    )
    status, _, err = peftx("run", "toy", "--config", "run.toml", "--dry-run")
    assert status == 2
    assert err.splitlines() == [
        "error: method.start in run.toml: must be greater than 0 (got -1)",
        "error: train.lr in run.toml: must be a number (got fast)",
        "error: sed in run.toml: no such option. Did you mean seed?",
    ]
    (tmp_path / "run.toml").write_text("[trian]\nlr = 1\n")
    err = peftx("run", "toy", "--config", "run.toml", "--dry-run")[2]
    assert err == "error: trian in run.toml: no such option. Did you mean train, track?\n"
    (tmp_path / "run.toml").write_text("[method]\nname = 3\n")
    assert "method.name in run.toml must be text (got 3)" in peftx("run", "toy", "--config", "run.toml")[2]
    (tmp_path / "run.toml").write_text("train = 3\n")
    assert "train in run.toml: must be a table (got 3)" in peftx("run", "toy", "--config", "run.toml")[2]
    (tmp_path / "run.toml").write_text("method = 3\n")
    assert (
        "method in run.toml must be a table or a name (got 3)"
        in peftx("run", "toy", "--config", "run.toml")[2]
    )


def test_missing_data_are_found_first(peftx, tmp_path):
    status, out, err = peftx("run", "toy", "--data", "away")
    assert (status, out) == (2, "")
    assert err == f"error: toy.far is not under {tmp_path / 'cache'}; get it by hand\n"
    assert not (tmp_path / "runs").exists()


def test_help_shows_the_options_of_what_was_chosen(peftx):
    status, out, _ = peftx("run", "toy", "--help")
    assert status == 0
    for expected in (
        "--start FLOAT",
        "[> 0; default 1.0]",
        "--order TEXT",
        "--limit INT",
        "--lr FLOAT",
        "--seed INT",
    ):
        assert expected in out
    assert "--rank" not in out.partition("Examples")[0]
    assert "--rank INT" in peftx("run", "toy", "--method", "core.lora", "--help")[1]
    assert "--rank INT" in peftx("run", "core.lora", "--help")[1]
    assert "--pretrained" in peftx("run", "toy", "--model", "free_a", "--help")[1]


def test_help_of_an_unknown_name_is_an_error(peftx):
    status, _, err = peftx("run", "toi", "--help")
    assert status == 2 and "Did you mean toy?" in err


TABLE = Table([Column("method", "method", left=True)], [{"method": "toy.scale"}])


@dataclasses.dataclass
class _Result:
    folder: str = "runs/x"
    record: dict = dataclasses.field(default_factory=lambda: {"rows": [], "status": "complete"})
    notes: tuple = ("weights are random",)
    next_commands: tuple = ("peftx eval runs/x",)
    table: Table = TABLE


@pytest.fixture
def executed(monkeypatch):
    seen = []

    def execute(config, registry, progress, resume):
        seen.append(config)
        assert resume is (config.out is not None and (config.out / "config.toml").is_file())
        progress.stage("training toy.scale")
        return _Result()

    import peftx.runs

    monkeypatch.setattr(peftx.runs, "execute", execute, raising=False)
    return seen


def test_a_run_prints_table_notes_folder_and_next_commands(peftx, executed):
    status, out, err = peftx(
        "run", "toy", "--start", "2", "--out", "here", "--baselines", "none", "--epochs", "3"
    )
    assert status == 0 and err == "training toy.scale\n"
    assert "toy.scale" in out and "note: weights are random" in out
    assert out.endswith("run folder: runs/x\nnext:\n  peftx eval runs/x\n")
    (config,) = executed
    assert isinstance(config, RunConfig)
    assert config.method.options == {"start": "2"} and config.baselines == []
    assert config.train.model_fields_set == {"epochs"}, "what was not given is left to the recipe"


def test_a_run_prints_json(peftx, executed):
    status, out, err = peftx("run", "toy", "--json")
    assert status == 0 and json.loads(out) == {"folder": "runs/x", "rows": [], "status": "complete"}
    assert err == "training toy.scale\n"


RESUMED = """
seed = 3
[task]
name = "toy.sorting"
[method]
name = "toy.scale"
start = 2.0
[data]
name = "toy.small"
[model]
name = "toy.net"
[train]
epochs = 7
"""


def test_resume_takes_settings_and_folder_from_the_run(peftx, executed, tmp_path):
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "config.toml").write_text(RESUMED)
    for typed in (["--resume", "half"], ["--resume=half", "--offline"], ["toy", "--resume", "half"]):
        assert peftx("run", *typed)[0] == 0
        config = executed[-1]
        assert str(config.out) == "half" and config.seed == 3 and config.train.epochs == 7
        assert config.method.name == "toy.scale" and config.method.options == {"start": 2.0}
    assert peftx("run", "--resume", "half", "--epochs", "9")[0] == 0
    assert executed[-1].train.epochs == 9  # `execute` compares, and refuses


def test_resume_of_nothing_is_one_sentence(peftx, executed, tmp_path):
    (tmp_path / "empty").mkdir()
    for typed, words in (
        (["--resume", "nowhere"], "no run folder at nowhere"),
        (["--resume", "empty"], "empty is not the folder of a run"),
        (["--resume"], "--resume needs a value"),
        (["--resume", "empty", "--out", "x"], "brings its own --config and --out"),
    ):
        status, _, err = peftx("run", *typed)
        assert status == 2 and words in err and err.count("\n") == 1
    assert not executed
