"""Bad input from the command line: exit code 2 and one sentence that says what was given and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from peftx.cli.main import main

Run = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command that has to fail, and return its one line of error."""

    def run(*arguments: object) -> str:
        assert main([str(argument) for argument in arguments]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and len(lines[0]) < 500
        return lines[0].removeprefix("error: ")

    return run


def table(rows: int = 200, freq: str = "h", start: str = "2024-01-01") -> pd.DataFrame:
    times = pd.date_range(start, periods=rows, freq=freq)
    return pd.DataFrame(
        {"date": times.astype(str), "a": np.sin(np.arange(rows) / 4), "b": np.arange(rows) * 0.1}
    )


def berlin() -> pd.DataFrame:
    local = pd.date_range("2024-03-30", periods=200, freq="h", tz="Europe/Berlin").tz_localize(None)
    return table().assign(date=local.astype(str))


def changed(column: str, row: int, cell: object) -> pd.DataFrame:
    held = table().astype({column: object})
    held.loc[row, column] = cell
    return held


@pytest.mark.parametrize(
    ("frame", "options", "sentence"),
    [
        (
            table().drop(columns="date"),
            (),
            "x.csv has no date column: none is called date, time, timestamp or ds",
        ),
        (
            table().drop(columns="date").assign(day=range(200)),
            (),
            "and 'day' begins with '0': name it with --data.ti",
        ),
        (
            changed("a", 37, "abc"),
            (),
            "x.csv: line 39 has 'abc' in the column 'a', which is no number: correct it",
        ),
        (changed("date", 7, "soon"), (), "x.csv: line 9 has 'soon' in the column 'date', which is no time"),
        (table().assign(b=np.nan), (), "the column 'b' has no value at all: leave it out with --data.drop b"),
        (
            table().assign(b=[np.nan] * 150 + [1.0] * 50),
            (),
            "channel 'b' of x.csv has no value in its 140 training rows: leave it out",
        ),
        (
            pd.concat([table()[:10], table()[9:]]),
            (),
            "line 12 (2024-01-01 09:00:00) has the time of line 11 again",
        ),
        (
            table().iloc[[0, 2, 1, *range(3, 200)]],
            (),
            "line 4 (2024-01-01 01:00:00) comes after a later time",
        ),
        (table().drop(index=[50]), (), "before line 52 (2024-01-03 03:00:00) 1 row is missing"),
        (
            changed("date", 5, "2024-01-01 05:20:00"),
            (),
            "line 7 (2024-01-01 05:20:00) stands between two steps of",
        ),
        (berlin(), (), "give the zone, such as --data.timezone Europe/Berlin"),
        (
            table(),
            ("frequency=fortnight",),
            "'fortnight' is no frequency: give one such as h, 15min, D, B, W-MON",
        ),
        (
            table(freq="W-TUE"),
            ("frequency=W-MON",),
            "line 2 (2024-01-02) does not stand on a Monday, as the given",
        ),
        (
            table().assign(date=range(200)),
            (),
            "the frequency is unknown, as its times only count the rows: give it",
        ),
        (table(), ("timezone=Mars",), "there is no time zone 'Mars': give one such as Europe/Berlin"),
        (table(4), (), "x.csv has 4 rows, and needs some for each of the splits"),
        (table(), ("channels=zz",), "x.csv has no column 'zz'. Columns are date, a, b."),
    ],
    ids=lambda value: "" if isinstance(value, pd.DataFrame) else None,
)
def test_a_bad_table_is_one_sentence(
    refused: Run, tmp_path: Path, frame: pd.DataFrame, options: tuple[str, ...], sentence: str
) -> None:
    frame.to_csv(tmp_path / "x.csv", index=False)
    given = [part for option in options for part in ("--set", option)]
    assert sentence in refused("data", "check", f"timeseries.csv:{tmp_path / 'x.csv'}", *given)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--task.horizon", 60),
            "has 20 of its own and 140 before them: take a shorter --task.horizon, 20 at most",
        ),
        (
            ("--task.horizon", 8, "--task.input-length", 150),
            "(--task.short-series pad takes shorter histories)",
        ),
    ],
)
def test_windows_that_do_not_fit_are_one_sentence(
    refused: Run, tmp_path: Path, options: tuple[object, ...], sentence: str
) -> None:
    table().to_csv(tmp_path / "x.csv", index=False)
    common = ("--task.input-length", 24) if "--task.input-length" not in options else ()
    said = refused(
        *("run", "timeseries.repeat_last", "--data", f"csv:{tmp_path / 'x.csv'}", "--baselines", "none"),
        *("--out", tmp_path / "run", "--device", "cpu", *common, *options),
    )
    assert sentence in said
