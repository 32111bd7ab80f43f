"""Folders with normal training rows and labelled test rows, in the layouts of the field.

The four layouts are read by `peftx_timeseries.data.labelled_files`. Validation is the last fifth of the training rows,
as in TSLib; training stops before it, where TSLib trains on it as well (``train_rows all``). Every channel is
standardised by its training rows, of each machine by its own. Labels stand beside test rows alone.

None of this was run on the official files, which nobody may pass on or which have no stated licence: the loader is
checked on files of their form. Layouts are those that the public code of TSLib, and of OmniAnomaly for the text files
of SMD, read.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from peftx.data.contract import DataContext, Dataset
from peftx.data.files import find_folder
from peftx.errors import DataError
from peftx_timeseries.config.anomaly import LabelledConfig
from peftx_timeseries.data.dataset import make_dataset
from peftx_timeseries.data.labelled_files import LAYOUTS, Pair, layout_of, read_pairs
from peftx_timeseries.series.marked import Marked, with_labels
from peftx_timeseries.series.series import SeriesSplit

__all__ = ["RATIOS", "labelled_dataset", "load", "locate"]

#: Folders below a data root that the sets lie in, beside the root itself.
_PLACES = ("timeseries", "dataset", "all_datasets")
_KIND = "folder of train and test rows with labels"
#: Per cent of rows that the official scripts of GPT4TS raise an alarm for, by the folder's name.
RATIOS = {"psm": 1.0, "msl": 2.0, "smap": 1.0, "smd": 0.5, "swat": 1.0}


def locate(config: LabelledConfig, ctx: DataContext) -> None:
    """Make sure that the folder is there and in a known layout; DataError otherwise."""
    layout_of(_find(config, ctx), config.layout)


def load(config: LabelledConfig, ctx: DataContext) -> Dataset:
    """Return the data set.

    Raises:
        DataError: there is no such folder, it is in none of the layouts, or what `read_pairs` raises.
    """
    folder = _find(config, ctx)
    layout = layout_of(folder, config.layout)
    pairs, notes = read_pairs(folder, layout, zero=config.missing == "zero")
    return labelled_dataset(
        f"timeseries.labelled:{config.path}",
        pairs,
        val_fraction=config.val_fraction,
        train_on_val=config.train_rows == "all",
        source=str(folder),
        licence="the files' own",
        note="; ".join((f"read as {LAYOUTS[layout]}", *notes)),
        ratio=RATIOS.get(folder.name.lower()),
        missing=config.missing,
        verified=False,
    )


def labelled_dataset(
    name: str,
    pairs: tuple[Pair, ...],
    *,
    val_fraction: float,
    source: str,
    licence: str,
    note: str = "",
    train_on_val: bool = False,
    ratio: float | None = None,
    kinds: tuple[str, ...] = (),
    missing: str = "",
    synthetic: bool = False,
    verified: bool = True,
) -> Dataset:
    """The data set of pairs of normal and labelled rows; its card says, besides the usual, `ratio`, `kinds`, and
    `missing`, what missing values became, where these are given.

    Raises:
        DataError: a series has too few training rows to split, or what `make_dataset` raises.
    """
    splits: dict[str, list[Marked]] = {"train": [], "val": [], "test": []}
    for pair in pairs:
        rows = len(pair.train)
        first = int(rows * round(1 - val_fraction, 12))
        if not 0 < first < rows:
            raise DataError(
                f"{pair.name}: {rows} training rows are too few to hold {val_fraction:g} of them out"
            )
        normal = Marked(pair.name, pair.train, pair.channels)
        splits["train"].append(normal.rows(0, rows if train_on_val else first))
        splits["val"].append(normal.rows(first, rows))
        splits["test"].append(Marked(pair.name, pair.test, pair.channels, labels=pair.labels))
    found = make_dataset(
        name,
        splits,
        frequency="",
        period=1,
        source=source,
        licence=licence,
        note="; ".join(filter(None, (note, "validation rows are trained on, too" if train_on_val else ""))),
        synthetic=synthetic,
        verified=verified,
    )
    said = {"ratio": ratio, "kinds": list(kinds), "missing": missing}
    card = dict(found.card) | {name: value for name, value in said.items() if value}
    held = {split: one for split, one in found.splits.items() if isinstance(one, SeriesSplit)}
    return dataclasses.replace(found, card=card, fingerprint=with_labels(found.fingerprint, held))


def _find(config: LabelledConfig, ctx: DataContext) -> Path:
    root = ctx.checked_root()
    for place in _PLACES if root is not None and not config.path.is_absolute() else ():
        assert root is not None
        if not (root / config.path).exists() and (root / place / config.path).is_dir():
            return root / place / config.path
    return find_folder(config.path, root, _KIND)
