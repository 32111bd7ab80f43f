from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from peftx.cli.output import print_json, print_table, table
from peftx.cli.progress import Bars, Lines, figures, make_progress
from peftx.report.table import Column


class Terminal(io.StringIO):
    def isatty(self):
        return True


ROWS = [{"name": "a[b]", "yes": True, "n": 1234, "many": ("x", "y")}, {"name": "b", "yes": False, "n": None}]
TABLE = table(["name", "yes", "many", Column("n", "n", "{:,}".format)], ROWS)


def test_piped_tables_are_plain_and_aligned(capsys):
    print_table(TABLE)
    out = capsys.readouterr().out
    assert (
        out
        == "name  yes  many      n\n----  ---  ----  -----\na[b]  yes  x, y  1,234\nb     no   -         -\n"
    )


def test_terminal_tables_hold_the_same_cells(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    print_table(TABLE)
    text = terminal.getvalue()
    assert "a[b]" in text and "1,234" in text and "x, y" in text, "brackets are text, not markup"


def test_figures_that_are_not_finite_are_null_in_json(capsys):
    print_json({"auc": float("nan"), "gaps": (float("inf"), 1.5)})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "auc": None,
        "gaps": [None, 1.5],
    }


def test_json_of_paths_and_objects(capsys):
    print_json({"path": Path("a"), "tuple": (1, 2)})
    assert json.loads(capsys.readouterr().out) == {"path": "a", "tuple": [1, 2]}
    with pytest.raises(TypeError, match="cannot write object as JSON"):
        print_json(object())


def drive(progress):
    progress.stage("training x")
    progress.begin("train", 3)
    for loss in (3.0, 2.0, 1.0):
        progress.advance({"loss": loss})
    progress.end("done")
    progress.note("mind the [gap]")


def test_lines_say_stages_and_only_now_and_then_a_step():
    stream = io.StringIO()
    with make_progress(stream) as progress:
        assert isinstance(progress, Lines)
        drive(progress)
    assert stream.getvalue() == "training x\n  done\nnote: mind the [gap]\n"
    stream = io.StringIO()
    drive(Lines(stream, pause=0.0))
    assert "  train 2/3 loss 2\n" in stream.getvalue()


def test_bars_on_a_terminal_are_closed_after_an_error():
    terminal = Terminal()
    with pytest.raises(ValueError, match="stop"), make_progress(terminal) as progress:
        assert isinstance(progress, Bars)
        progress.begin("train", 3)
        raise ValueError("stop")
    with make_progress(terminal) as progress:
        drive(progress)
    assert "training x" in terminal.getvalue() and "mind the [gap]" in terminal.getvalue()


def test_figures():
    assert figures({"loss": 0.123456, "lr": 1e-5}) == "loss 0.1235  lr 1e-05"
    assert figures(None) == ""
