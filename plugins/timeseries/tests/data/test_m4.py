"""M4: the competition's CSVs and the Monash file are the same data set, with the competition's horizons and seasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from peftx.data.contract import DataContext
from peftx.errors import DataError
from peftx_timeseries.config.data import M4Config
from peftx_timeseries.data.m4 import GROUPS, load, locate


def write(folder: Path, group: str = "yearly", test: str | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    horizon = GROUPS[group].horizon
    ahead = ",".join(f'"{value}"' for value in range(900, 900 + horizon))
    train = '"V1","V2"\n"Y1","1","2.5","3","4","5","6","7","8"\n"Y2","1","2","3","4","5","6","7",,\n'
    (folder / f"{group.title()}-train.csv").write_text(train)
    if test is None:
        test = f'"V1","V2"\n"Y2",{ahead}\n"Y1",{ahead}\n'
    (folder / f"{group.title()}-test.csv").write_text(test)


def ctx(root: Path) -> DataContext:
    return DataContext(root, root / "nowhere", offline=True)


@pytest.mark.parametrize("place", ["m4", "M4", "."])
def test_train_and_test_are_joined_by_name(tmp_path: Path, place: str) -> None:
    write(tmp_path / place)
    data = load(M4Config(path="yearly"), ctx(tmp_path))
    assert [one.name for one in data.splits["train"].series] == ["Y1", "Y2"]
    first, second = data.splits["test"].series
    assert first.values[:, 0].tolist() == [1, 2.5, 3, 4, 5, 6, 7, 8, *range(900, 906)]
    assert (second.begin, second.end) == (7, 13) and len(second.values) == 13
    assert [(one.begin, one.end) for one in data.splits["train"].series] == [(0, 2), (0, 1)]
    assert data.card["horizon"] == 6 and data.card["period"] == 1 and data.card["frequency"] == "YS"
    assert (
        data.copy is not None
        and data.copy.kind == "partial"
        and "2 of 23,000 series in train" in data.copy.detail
    )


def test_the_halves_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    write(tmp_path / "all")
    for half in ("Train", "Test"):
        (tmp_path / "M4" / half).mkdir(parents=True)
        (tmp_path / "all" / f"Yearly-{half.lower()}.csv").rename(
            tmp_path / "M4" / half / f"Yearly-{half.lower()}.csv"
        )
    assert len(load(M4Config(path="yearly"), ctx(tmp_path)).splits["train"]) == 2


@pytest.mark.parametrize(
    ("test", "sentence"),
    [
        ('"V1"\n"Y1",1,2,3,4,5,6\n', r"Yearly-train.csv has the series Y2, and Yearly-test.csv does not"),
        (
            '"V1"\n"Y1",1,2,3\n"Y2",1,2,3,4,5,6\n',
            r"the series Y1 has 3 values, but the competition asks for 6",
        ),
        ('"V1"\n"Y1",1,2,3,4,5,x\n', r"Yearly-test.csv: line 2, series Y1: could not convert"),
        ('"V1"\n"Y1",1,2,3,4,5,6\n"Y1",1,2,3,4,5,6\n', r"line 3 has the series 'Y1' twice"),
        (
            '"V1"\n"Y1",1,2,3,4,5,6\n"Y2",1,2,3,4,5,6\n"Y3",1,2,3,4,5,6\n',
            r"Yearly-test.csv has the series Y3, and Yearly-train.csv does not",
        ),
        ('"V1"\n', r"Yearly-test.csv holds no series"),
    ],
)
def test_files_that_do_not_fit_are_one_sentence(tmp_path: Path, test: str, sentence: str) -> None:
    write(tmp_path / "m4", test=test)
    with pytest.raises(DataError, match=sentence) as error:
        load(M4Config(path="yearly"), ctx(tmp_path))
    assert "\n" not in str(error.value)


def test_what_is_not_there_says_where_it_goes(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"Daily-train.csv and Daily-test.csv are not there and are brought by hand: get"
    ):
        locate(M4Config(path="daily"), ctx(tmp_path))
    write(tmp_path / "m4")
    (tmp_path / "m4" / "Yearly-test.csv").unlink()
    with pytest.raises(DataError, match=r"m4 has Yearly-train.csv and no Yearly-test.csv: get it from"):
        locate(M4Config(path="yearly"), ctx(tmp_path))
    with pytest.raises(DataError, match=r"^M4 has no group 'hourli'\. .*hourly"):
        locate(M4Config(path="hourli"), ctx(tmp_path))
    with pytest.raises(DataError, match=r"Groups are yearly, quarterly, monthly, weekly, daily, hourly"):
        locate(M4Config(path="xyz"), ctx(tmp_path))


@pytest.mark.parametrize("group", ["hourly", "weekly"])
def test_the_file_of_the_archive_will_do(real: Path, group: str) -> None:
    data = load(M4Config(path=group), ctx(real))
    assert data.copy is not None and data.copy.kind == "counted"
    assert data.splits["test"].extent == GROUPS[group].series and data.card["period"] == GROUPS[group].period
    assert {len(one) for one in data.splits["test"].series} == {GROUPS[group].horizon}
    assert all(np.isfinite(one.values).all() for one in data.splits["train"].series)


def test_a_cell_that_no_reader_takes_is_one_sentence(tmp_path: Path) -> None:
    write(tmp_path / "m4", test='"V1","V2"\n"Y1",' + "9" * 200_000 + "\n")
    with pytest.raises(
        DataError, match=r"^Yearly-test\.csv is no table that can be read \(field larger than"
    ):
        load(M4Config(path="yearly"), ctx(tmp_path))
