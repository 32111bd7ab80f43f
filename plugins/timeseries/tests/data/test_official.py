"""The shared sets: borders and window counts on the real files, where files may lie, and what copies are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from peftx.data.checks import check_dataset
from peftx.data.contract import DataContext
from peftx.errors import DataError, NetworkError
from peftx_timeseries.config.data import OfficialConfig
from peftx_timeseries.data.official import ETTH1, ETTM1, ILLNESS, SETS, Official
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.windows import Windows

#: Borders by TSLib, of the sets as published.
BORDERS = {
    "etth1": (8640, 2880, 2880),
    "etth2": (8640, 2880, 2880),
    "ettm1": (34560, 11520, 11520),
    "ettm2": (34560, 11520, 11520),
    "exchange": (5311, 760, 1517),
    "illness": (676, 97, 193),
    "weather": (36887, 5270, 10539),
    "electricity": (18412, 2632, 5260),
    "traffic": (12280, 1756, 3508),
}


@pytest.mark.parametrize("name", SETS)
def test_borders_are_those_of_the_protocol(name: str) -> None:
    borders = SETS[name].parts(SETS[name].rows)
    assert tuple(end - begin for begin, end in borders.values()) == BORDERS[name]
    assert borders["train"][0] == 0 and borders["val"][0] == borders["train"][1]
    assert borders["test"][0] == borders["val"][1]


def ctx(root: Path) -> DataContext:
    return DataContext(root, root / "nowhere", offline=True)


@pytest.mark.parametrize("name", ["etth1", "etth2"])
def test_ett_is_the_official_file_with_its_windows(real: Path, name: str) -> None:
    data = SETS[name].load(OfficialConfig(), ctx(real))
    assert data.copy is not None and data.copy.kind == "official" and check_dataset(data).ok
    assert data.card["channels"] == ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    scaler = Scaler.from_dict(data.card["scaler"])
    frame = pd.read_csv(real / "ETT-small" / SETS[name].file)
    np.testing.assert_allclose(scaler.mean[0], frame.iloc[:8640, 1:].mean())
    np.testing.assert_allclose(scaler.std[0], frame.iloc[:8640, 1:].std(ddof=0))
    for horizon, count in ((96, 2785), (192, 2689), (336, 2545), (720, 2161)):
        for length in (96, 336, 512):
            test = Windows(data.splits["test"], length, horizon, scaler.rows_for)  # type: ignore[arg-type]
            assert test.windows == count
        assert (
            Windows(data.splits["train"], 336, horizon, scaler.rows_for).windows == 8640 - 336 - horizon + 1
        )  # type: ignore[arg-type]
    # the first target of test is the hour after the last of val
    assert str(data.splits["test"][0].times[11520]) == "2017-10-24T00:00:00"


@pytest.mark.parametrize(("name", "channels", "period"), [("exchange", 8, 7), ("illness", 7, 52)])
def test_exchange_and_illness_have_the_published_rows(
    real: Path, name: str, channels: int, period: int
) -> None:
    data = SETS[name].load(OfficialConfig(), ctx(real))
    assert data.copy is not None and data.copy.kind == "counted" and check_dataset(data).ok
    assert len(data.card["channels"]) == channels and data.card["channels"][-1] == "OT"
    assert data.card["period"] == period
    rows = tuple(split.extent for split in data.splits.values())
    assert rows == BORDERS[name]
    horizon = {"exchange": 96, "illness": 24}[name]
    test = Windows(data.splits["test"], 96, horizon, Scaler.from_dict(data.card["scaler"]).rows_for)  # type: ignore[arg-type]
    assert test.windows == {"exchange": 1422, "illness": 170}[name]


def test_few_shot_keeps_the_unit_of_errors(real: Path) -> None:
    whole = ETTH1.load(OfficialConfig(), ctx(real))
    few = ETTH1.load(OfficialConfig(train_fraction=0.05, train_context=336), ctx(real))
    assert few.splits["train"].extent == 751 and few.card["scaler"] == whole.card["scaler"]
    assert few.copy == whole.copy and few.fingerprint != whole.fingerprint
    one = ETTH1.load(OfficialConfig(channels=("OT",)), ctx(real))
    assert one.card["channels"] == ["OT"] and one.splits["test"].extent == 2880


def write(one: Official, path: Path, rows: int, channels: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = pd.date_range("2020-01-01", periods=rows, freq=one.frequency)
    frame = pd.DataFrame({"date": times.astype(str)})
    for number in range(channels or one.channels):
        frame[f"c{number}"] = np.arange(rows) % 17 + number
    frame.to_csv(path, index=False)


@pytest.mark.parametrize(
    "place",
    [
        "ETT-small/ETTh1.csv",
        "ETTh1.csv",
        "dataset/ETT-small/ETTh1.csv",
        "timeseries/ETT-small/ETTh1.csv",
        "ETT/ETTh1.csv",
    ],
)
def test_a_file_with_another_checksum_is_named_an_altered_copy(tmp_path: Path, place: str) -> None:
    write(ETTH1, tmp_path / place, 17420)
    data = ETTH1.load(OfficialConfig(), ctx(tmp_path))
    assert data.copy is not None and data.copy.kind == "altered"
    assert data.copy.titled(data.name) == "timeseries.etth1 (altered copy)"


def test_files_of_other_lengths_and_widths(tmp_path: Path) -> None:
    write(ILLNESS, tmp_path / "illness" / "national_illness.csv", 900)
    data = ILLNESS.load(OfficialConfig(), ctx(tmp_path))
    assert data.copy is not None and (data.copy.kind, data.copy.detail) == (
        "partial",
        "900 of 966 rows in national_illness.csv",
    )
    assert data.splits["train"].extent == 630
    write(ILLNESS, tmp_path / "illness" / "national_illness.csv", 966, channels=5)
    with pytest.raises(
        DataError, match=r"has 5 channels, but national_illness.csv has 7: it is another file"
    ):
        ILLNESS.load(OfficialConfig(), ctx(tmp_path))
    write(ETTH1, tmp_path / "ETTh1.csv", 10000)
    with pytest.raises(
        DataError, match=r"^etth1 has 10000 rows, but its val split takes rows 8640 to 11519$"
    ):
        ETTH1.load(OfficialConfig(), ctx(tmp_path))


def test_rows_are_taken_as_they_stand(tmp_path: Path) -> None:
    one = SETS["weather"]
    times = pd.date_range("2020-01-01", periods=3000, freq="10min").astype(str).tolist()
    times[40] = times[39]
    frame = pd.DataFrame({"date": times, **{f"c{number}": range(3000) for number in range(21)}})
    frame.drop(index=[100, 101]).to_csv(tmp_path / "weather.csv", index=False)
    data = one.load(OfficialConfig(), ctx(tmp_path))
    assert len(data.splits["train"][0].values) == 2998 and data.card["period"] == 144
    assert "rows taken as they stand, 3 of them not a step of 10min after the one before" in data.card["note"]


@pytest.mark.parametrize("name", SETS)
def test_a_set_that_is_not_there_says_where_its_file_goes(tmp_path: Path, name: str) -> None:
    one = SETS[name]
    with pytest.raises((DataError, NetworkError)) as error:
        one.locate(OfficialConfig(), ctx(tmp_path))
    message = str(error.value)
    assert one.file in message and "\n" not in message
    assert message.startswith(f"timeseries.{name}: {one.file} is not there and ")
    if one.url:
        assert one.url in message and "network is switched off" in message
    else:
        assert one.source in message and str(tmp_path / one.folders[0] / one.file) in message


def test_what_lies_in_the_cache_is_held_to_the_checksum(tmp_path: Path) -> None:
    at_hand = DataContext(None, tmp_path, offline=True)
    write(ETTH1, tmp_path / "timeseries.etth1" / "ETTh1.csv", 17420)
    with pytest.raises(DataError, match=r"is published for ETTh1\.csv: it is incomplete or altered"):
        ETTH1.locate(OfficialConfig(), at_hand)
    write(ETTM1, tmp_path / "timeseries.ettm1" / "ETTm1.csv", 69680)
    assert ETTM1.find(at_hand).is_file()
