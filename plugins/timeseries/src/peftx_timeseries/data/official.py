"""The sets that papers on long-term forecasting share, with the borders of their protocol.

    etth1, etth2    hours; train, val and test are 12, 4 and 4 months of 30 days, as in Informer (arXiv:2012.07436) and
    ettm1, ettm2    TSLib; what comes after is never used. The same with quarters of an hour.
    exchange        8 currencies by day (G. Lai et al., arXiv:1703.07015)
    illness         7 figures on influenza-like illness by week (CDC)
    weather         21 measurements every ten minutes (MPI for Biogeochemistry, Jena)
    electricity     321 customers by hour (ECL)
    traffic         862 sensors by hour (Caltrans)

All but ETT: 70, 10 and 20 % of the rows in time, train and test rounded down and val the rest (TSLib). Rows are taken
as they stand in the file, as every published figure has them: weather has rows whose times are not ten minutes apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peftx.data.contract import DataContext, Dataset, Published
from peftx.data.copies import Copy, compare_copy
from peftx.data.fetch import Remote, fetch, has_checksum
from peftx.errors import DataError
from peftx_timeseries.config.data import CsvConfig, OfficialConfig
from peftx_timeseries.data.borders import by_fractions, cut
from peftx_timeseries.data.dataset import make_dataset
from peftx_timeseries.data.reading import read_table
from peftx_timeseries.data.tables import read_wide

__all__ = [
    "ELECTRICITY",
    "ETTH1",
    "ETTH2",
    "ETTM1",
    "ETTM2",
    "EXCHANGE",
    "ILLNESS",
    "SETS",
    "TRAFFIC",
    "WEATHER",
    "Official",
]

#: Folders below a data root that the files of TSLib and its forerunners lie in, beside the root itself.
_PLACES = ("", "timeseries", "dataset", "all_datasets", "all_six_datasets")
_ETT = "https://github.com/zhouhaoyi/ETDataset"
_TSLIB = "https://github.com/thuml/Time-Series-Library"
_LAI = "https://github.com/laiguokun/multivariate-time-series-data"


@dataclass(frozen=True, slots=True)
class Official:
    """One set.

    Args:
        name: after ``timeseries.``.
        file: name of its file; `folders`: those it may lie in, below the places of TSLib.
        rows, channels: as published.
        frequency: step of its rows.
        licence, source: who says what about it, where it comes from.
        borders: rows of train, val and test; None: 70/10/20 %.
        sha256: of the official file; empty where none is known to be it.
        url: where the file can be had under that checksum; empty: it is brought by hand.
        verified: whether the loader was run on the real file.
    """

    name: str
    file: str
    folders: tuple[str, ...]
    rows: int
    channels: int
    frequency: str
    licence: str
    source: str
    borders: tuple[int, int, int] | None = None
    sha256: str = ""
    url: str = ""
    verified: bool = False

    def parts(self, rows: int) -> dict[str, tuple[int, int]]:
        """First row of each split, and the one behind its last."""
        if self.borders is None:
            return by_fractions(rows)
        train, val, test = self.borders
        return {"train": (0, train), "val": (train, train + val), "test": (train + val, train + val + test)}

    def locate(self, config: OfficialConfig, ctx: DataContext) -> None:
        """Make sure that the file is there; see `find`."""
        self.find(ctx)

    def find(self, ctx: DataContext) -> Path:
        """Return the file: below the data root, in the cache, or downloaded where a checksum and a host are known.

        Raises:
            DataError: it is not there and is brought by hand, or what is in the cache is another file.
            NetworkError: it is not there, and there is no network.
        """
        what = f"timeseries.{self.name}"
        root = ctx.checked_root()
        tried = (
            [root / place / folder / self.file for place in _PLACES for folder in (*self.folders, "")]
            if root
            else []
        )
        found = next((path for path in tried if path.is_file()), None)
        if found is not None:
            return found
        cache = ctx.cache / what
        if self.url:
            remote = Remote(self.file, (self.url,), f"sha256:{self.sha256}")
            return fetch(remote, cache, offline=ctx.offline, what=what)
        if (cache / self.file).is_file():
            return cache / self.file
        raise DataError(
            f"{what}: {self.file} is not there and is brought by hand: get it from {self.source}"
            + ("" if self.borders else f", in the layout of {_TSLIB} (a column date, then the channels)")
            + f", and put it at {tried[0] if tried else cache / self.file}"
            + ("" if root else ", or anywhere with --data-root")
        )

    def load(self, config: OfficialConfig, ctx: DataContext) -> Dataset:
        """Return the data set: one series, with the rows of each split.

        Raises:
            DataError: the file is damaged, is another one, or has too few rows for the borders; what `find` raises.
        """
        path = self.find(ctx)
        what = f"timeseries.{self.name}"
        options = CsvConfig(
            path=path,
            channels=config.channels,
            regular="keep",
            frequency=self.frequency,
            period=config.period,
        )
        read = read_wide(read_table(path), options, self.name)
        series = read.series[0]
        rows, channels = series.values.shape
        if not config.channels and channels != self.channels:
            raise DataError(
                f"{path} has {channels} channels, but {self.file} has {self.channels}: it is another file; get it from "
                f"{self.source}, or read it with timeseries.csv:{path}"
            )
        borders = self.parts(rows)
        said = "rows " + ", ".join(
            f"{first:,} .. {end - 1:,} {split}" for split, (first, end) in borders.items()
        )
        parts = cut((series,), {rows: borders}, config, "refuse", None, said)
        # what was read before few-shot training takes any away
        held = {split: min(end, rows) - min(first, rows) for split, (first, end) in borders.items()}
        published = Published(
            {split: end - first for split, (first, end) in self.parts(self.rows).items()}, source=self.source
        )
        return make_dataset(
            what,
            parts.splits,
            frequency=self.frequency,
            period=read.period,
            source=self.source,
            licence=self.licence,
            note="; ".join((*parts.notes, *read.notes)),
            verified=self.verified,
            published=published,
            copy=self.copy(path, rows, published, held),
            scaler=parts.scaler,
            # the frequency is told again, so that another one is seen
            reading={"layout": "wide", "regular": "keep"},
        )

    def copy(self, path: Path, rows: int, published: Published, held: Mapping[str, int]) -> Copy:
        """How the file stands to the published one: by its checksum, or by its rows where none is known."""
        if rows != self.rows:
            return Copy(
                "partial" if rows < self.rows else "altered", f"{rows:,} of {self.rows:,} rows in {path.name}"
            )
        same = has_checksum(path, f"sha256:{self.sha256}") if self.sha256 else None
        return compare_copy(published, held, same)


def _ett(name: str, file: str, per_hour: int, sha256: str = "") -> Official:
    month = 30 * 24 * per_hour
    return Official(
        name,
        file,
        ("ETT-small", "ETT", "ett", "ETDataset/ETT-small"),
        17_420 * per_hour,
        7,
        "h" if per_hour == 1 else "15min",
        "CC BY-ND 4.0",
        _ETT,
        (12 * month, 4 * month, 4 * month),
        sha256,
        f"https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/{file}" if sha256 else "",
        verified=bool(sha256),
    )


ETTH1 = _ett("etth1", "ETTh1.csv", 1, "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066")
ETTH2 = _ett("etth2", "ETTh2.csv", 1, "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b")
ETTM1 = _ett("ettm1", "ETTm1.csv", 4)
ETTM2 = _ett("ettm2", "ETTm2.csv", 4)
EXCHANGE = Official(
    "exchange",
    "exchange_rate.csv",
    ("exchange_rate", "exchange"),
    7_588,
    8,
    "D",
    "none stated",
    _LAI,
    verified=True,
)
ILLNESS = Official(
    "illness",
    "national_illness.csv",
    ("illness",),
    966,
    7,
    "W-TUE",
    "US government data",
    "https://gis.cdc.gov/grasp/fluview/fluportaldashboard.html",
    verified=True,
)
WEATHER = Official(
    "weather",
    "weather.csv",
    ("weather",),
    52_696,
    21,
    "10min",
    "as its page says",
    "https://www.bgc-jena.mpg.de/wetter/",
)
ELECTRICITY = Official(
    "electricity",
    "electricity.csv",
    ("electricity", "ECL"),
    26_304,
    321,
    "h",
    "CC BY 4.0 for the original, as commonly stated",
    "https://archive.ics.uci.edu/dataset/321",
)
TRAFFIC = Official(
    "traffic",
    "traffic.csv",
    ("traffic",),
    17_544,
    862,
    "h",
    "none stated",
    "https://pems.dot.ca.gov/",
)

#: The sets by name.
SETS = {
    one.name: one for one in (ETTH1, ETTH2, ETTM1, ETTM2, EXCHANGE, ILLNESS, WEATHER, ELECTRICITY, TRAFFIC)
}
