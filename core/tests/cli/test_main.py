from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import click
import pytest

import peftx as package
from peftx.cli import app
from peftx.cli.main import global_first, main
from peftx.errors import TrainingError
from peftx_kernels.table import KernelError


def test_help_lists_every_command_with_examples(peftx):
    status, out, err = peftx("--help")
    assert status == 0 and err == ""
    assert all(f"  {name} " in out for name in app.COMMANDS)
    assert "toy.hello" in out and "Examples:" in out
    assert peftx()[1] == out


@pytest.mark.parametrize("name", app.COMMANDS)
def test_every_command_has_help_that_agrees_with_the_list(peftx, name):
    command = app.cli.get_command(click.Context(app.cli), name)
    assert command.name == name and command.help
    status, out, _ = peftx(name, "--help")
    assert status == 0 and f"peftx {name}" in out


def test_version(peftx):
    assert peftx("--version") == (0, f"peftx {package.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lits"], "error: no command is called 'lits'. Did you mean list?\n"),
        (["zzzz"], "error: no command is called 'zzzz'. See `peftx --help`\n"),
        (["--nope"], "error: No such option '--nope'"),
        (["list", "--jso"], "error: No such option '--jso'"),
        (["list", "a", "b"], "error: Got unexpected extra argument (b); see `peftx list --help`\n"),
        (["info"], "error: Missing argument 'NAME'; see `peftx info --help`\n"),
        (
            ["--no-plugin", "tyo", "list"],
            "error: --no-plugin tyo: no such plugin is installed. Did you mean toy?\n",
        ),
        (["vision.tool"], "error: vision.tool belongs to the pack vision, which is not installed"),
    ],
)
def test_usage_errors_are_one_line_with_status_2(peftx, arguments, message):
    status, out, err = peftx(*arguments)
    assert status == 2 and out == ""
    assert err.startswith(message) and err.count("\n") == 1 and "Traceback" not in err


def test_global_options_may_stand_anywhere():
    assert global_first(["run", "x", "--no-plugin", "a", "--debug", "--b"]) == [
        "--no-plugin",
        "a",
        "--debug",
        "run",
        "x",
        "--b",
    ]
    assert global_first(["a", "--", "--debug"]) == ["a", "--", "--debug"]
    assert global_first(["a", "--no-plugin=x"]) == ["--no-plugin=x", "a"]


def test_no_plugin_after_the_command(peftx):
    status, out, _ = peftx("plugins", "--json", "--no-plugin", "toy")
    assert status == 0
    assert [(row["domain"], row["status"]) for row in json.loads(out)] == [("core", "ok"), ("toy", "blocked")]
    status, _, err = peftx("run", "toy", "--no-plugin", "toy")
    assert status == 2 and "switched off by --no-plugin" in err


def test_debug_shows_the_traceback(peftx):
    with pytest.raises(Exception, match="nothing is called 'nope'"):
        peftx("--debug", "info", "nope")


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.Abort(), 130, "interrupted\n"),
        (TrainingError("loss is NaN at step 3"), 1, "error: loss is NaN at step 3\n"),
        (click.exceptions.Exit(5), 5, ""),
        (BrokenPipeError(), 0, ""),
        (KernelError("no such kernel"), 2, "error: no such kernel\n"),
    ],
)
def test_how_a_command_may_end(monkeypatch, capsys, raised, status, line):
    def fail(*args, **kwargs):
        raise raised

    monkeypatch.setattr(app.cli, "main", fail)
    monkeypatch.setattr("os.dup2", lambda *args: None)
    assert main(["list"]) == status
    assert capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(app.cli, "main", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["list"])


def test_a_plugin_brings_its_own_command(peftx):
    assert peftx("toy.hello") == (0, "hello\n", "")


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --no-files")]
)
def test_completion_scripts(peftx, shell, word):
    status, out, _ = peftx("completion", shell)
    assert status == 0 and word in out and "_PEFTX_COMPLETE" in out


@pytest.mark.parametrize(
    ("line", "expected", "absent"),
    [
        ("peftx pl", {"plugins"}, {"list"}),
        ("peftx run to", {"toy", "toy.scale", "toy.sorting"}, {"core.lora"}),
        ("peftx run toy --method s", {"scale"}, {"toy"}),
        ("peftx run toy --sta", {"--start"}, {"--rank"}),
        ("peftx run toy --method core.lora --ra", {"--rank", "--rank-pattern"}, {"--start"}),
        ("peftx explain core.l", {"core.lora"}, {"core.dora"}),
    ],
)
def test_completions(toy, line, expected, absent):
    from click.shell_completion import ShellComplete

    *words, incomplete = line.split()[1:]
    found = {
        item.value
        for item in ShellComplete(app.cli, {}, "peftx", "_PEFTX_COMPLETE").get_completions(words, incomplete)
    }
    assert expected <= found and not absent & found


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_control_c_ends_with_130_and_one_line(toy):
    (toy / "toy_things.py").write_text(
        "import sys, time\nimport click\n\n@click.command()\ndef hello():\n"
        "    print('started', flush=True)\n    time.sleep(60)\n"
    )
    program = (
        "import sys; from peftx.plugins import api; api.ENTRY_POINT_GROUP = 'peftx.plugins.of_this_test';"
        "from peftx.cli import main; sys.exit(main(['toy.hello']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(toy), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.strip()) == (130, "interrupted")
