"""The data sets of the pack. Descriptors only: no torch, no numpy."""

from __future__ import annotations

from collections.abc import Iterator

from peftx.plugins import DatasetSpec, hookimpl
from peftx_timeseries.plugin import anomaly, classification, short_term

__all__ = ["peftx_datasets"]

_ETT = "https://github.com/zhouhaoyi/ETDataset"


@hookimpl
def peftx_datasets() -> Iterator[DatasetSpec]:
    """The data sets. Loaders that were never run on the real files say so: `verified` is False."""
    yield DatasetSpec(
        name="timeseries.waves",
        summary="three synthetic series of 2,400 hours, with a change of regime; computed, no download",
        target="peftx_timeseries.data.waves:load",
        config="peftx_timeseries.config.data:WavesConfig",
        licence="none needed",
        source="computed from a seed",
        size="none",
        synthetic=True,
    )
    yield from short_term.datasets()
    yield DatasetSpec(
        name="timeseries.demand",
        summary="4,800 synthetic hours with covariates that matter: days off, known ahead, and a temperature",
        target="peftx_timeseries.data.demand:load",
        config="peftx_timeseries.config.data:DemandConfig",
        licence="none needed",
        source="computed from a seed",
        size="none",
        synthetic=True,
    )
    for name, summary, licence, source, size, verified in (
        (
            "etth1",
            "17,420 hours of a transformer, 7 channels; 12/4/4 months",
            "CC BY-ND 4.0",
            _ETT,
            "2.5 MiB",
            True,
        ),
        ("etth2", "17,420 hours of another transformer, 7 channels", "CC BY-ND 4.0", _ETT, "2.3 MiB", True),
        (
            "ettm1",
            "69,680 quarters of an hour of the first, 7 channels",
            "CC BY-ND 4.0",
            _ETT,
            "about 10 MiB",
            False,
        ),
        (
            "ettm2",
            "69,680 quarters of an hour of the second, 7 channels",
            "CC BY-ND 4.0",
            _ETT,
            "about 9 MiB",
            False,
        ),
        (
            "exchange",
            "7,588 days of 8 exchange rates; 70/10/20 %",
            "none stated",
            "https://github.com/laiguokun/multivariate-time-series-data",
            "0.6 MiB",
            True,
        ),
        (
            "illness",
            "966 weeks of 7 figures on influenza-like illness; 70/10/20 %",
            "US government data",
            "https://gis.cdc.gov/grasp/fluview/fluportaldashboard.html",
            "65 KiB",
            True,
        ),
        (
            "weather",
            "52,696 times ten minutes of 21 measurements; 70/10/20 %",
            "as its page says",
            "https://www.bgc-jena.mpg.de/wetter/",
            "about 7 MiB",
            False,
        ),
        (
            "electricity",
            "26,304 hours of 321 customers (ECL); 70/10/20 %",
            "CC BY 4.0 for the original, as commonly stated",
            "https://archive.ics.uci.edu/dataset/321",
            "about 90 MiB",
            False,
        ),
        (
            "traffic",
            "17,544 hours of 862 sensors on roads; 70/10/20 %",
            "none stated",
            "https://pems.dot.ca.gov/",
            "about 130 MiB",
            False,
        ),
    ):
        yield DatasetSpec(
            name=f"timeseries.{name}",
            summary=summary,
            target=f"peftx_timeseries.data.official:{name.upper()}.load",
            locate=f"peftx_timeseries.data.official:{name.upper()}.locate",
            config="peftx_timeseries.config.data:OfficialConfig",
            licence=licence,
            source=source,
            size=size,
            verified=verified,
        )
    yield DatasetSpec(
        name="timeseries.m4",
        summary="a group of the M4 competition: m4:yearly, quarterly, monthly, weekly, daily, hourly",
        target="peftx_timeseries.data.m4:load",
        locate="peftx_timeseries.data.m4:locate",
        config="peftx_timeseries.config.data:M4Config",
        licence="none stated",
        source="https://github.com/Mcompetitions/M4-methods",
        verified=False,
        parametric=True,
    )
    for name, summary, module, config, licence in (
        (
            "csv",
            "your own table, CSV or Parquet: a column of times, one column a channel",
            "tables",
            "CsvConfig",
            "",
        ),
        ("long", "your own long table, CSV or Parquet: unique_id, ds, y", "long", "LongConfig", ""),
        (
            "tsf",
            "a file of the Monash archive: .tsf, .tsf.gz or .zip",
            "tsf",
            "TsfConfig",
            "CC BY 4.0 for files of the Monash archive, by its authors' word",
        ),
    ):
        yield DatasetSpec(
            name=f"timeseries.{name}",
            summary=summary,
            target=f"peftx_timeseries.data.{module}:load",
            locate=f"peftx_timeseries.data.{module}:locate",
            config=f"peftx_timeseries.config.data:{config}",
            licence=licence or "the file's own",
            source="PATH",
            parametric=True,
        )
    yield from anomaly.datasets()
    yield from classification.datasets()
    yield DatasetSpec(
        name="timeseries.transfer",
        summary="trained on one data set and tested on another: --data.source etth1 --data.target etth2",
        target="peftx_timeseries.data.transfer:load",
        locate="peftx_timeseries.data.transfer:locate",
        config="peftx_timeseries.config.transfer:TransferConfig",
        licence="those of the two",
        source="those of the two",
    )
