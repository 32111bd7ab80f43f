"""Zero-shot transfer: trained and validated on one data set, tested on another whose rows no model has seen.

Each side is standardised by its own training rows, the target too, as the protocols of long-term zero-shot forecasting
have it (their test loader is the target's own): the figures are in the unit of the target's own table, and stand beside
those of models that were trained there. What is learnt of the target are these statistics alone. Channels are samples,
so the two may differ in how many they have and in what these are called.

The season is the target's, so that the naive rows know on test what anybody knows of it; frequencies may differ.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from peftx.config.run import Choice
from peftx.config.suite import label
from peftx.data.by_name import NamedDataset, named_dataset
from peftx.data.contract import DataContext, Dataset, Published
from peftx.data.copies import Copy
from peftx.errors import DataError
from peftx_timeseries.config.transfer import TransferConfig
from peftx_timeseries.data.dataset import MOST_SCALED
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import SeriesSplit, fingerprint

__all__ = ["load", "locate"]

#: What a card says of the data that are forecast, and not of those trained on.
_TARGETS = ("frequency", "period", "channels", "horizon", "known", "past", "reading")
#: Copies from the best to the worst: both sides together are as good as the worse.
_COPIES = ("official", "counted", "partial", "altered")


def locate(config: TransferConfig, ctx: DataContext) -> None:
    """Make sure that the files of both are there.

    Raises:
        UnknownNameError, PluginError, ConfigError: a name or an option is wrong.
        DataError, NetworkError: files are not there and cannot be fetched.
    """
    for side in _sides(config):
        side.locate(ctx)


def load(config: TransferConfig, ctx: DataContext) -> Dataset:
    """Return train and val of the source and test of the target, with the scaling of each.

    Raises:
        DataError: one is no data set of series or lacks a split, or their covariates differ; what their loaders raise.
        UnknownNameError, PluginError, ConfigError: a name or an option is wrong.
    """
    source, target = (side.load(ctx) for side in _sides(config))
    first, second = (
        _called(config.source, config.source_options),
        _called(config.target, config.target_options),
    )
    learnt, scaler = _own(first, source), _own(second, target)
    for kind in ("known", "past"):
        there, here = (tuple(data.card.get(kind, ())) for data in (source, target))
        if there != here:
            raise DataError(
                f"{first} has the {kind} covariates {', '.join(there) or 'none'}, and {second} has "
                f"{', '.join(here) or 'none'}: give both the same, by --data.source-options and --data.target-options"
            )
    splits = {
        split: SeriesSplit(
            [replace(one, scaler=learnt) for one in _split(first, source, split).series], scaler
        )
        for split in ("train", "val")
        if split in source.splits
    }
    splits["test"] = SeriesSplit(
        [replace(one, scaler=scaler) for one in _split(second, target, "test").series], scaler
    )
    card: dict[str, Any] = {key: target.card[key] for key in _TARGETS if key in target.card}
    card |= {
        "source": f"train and val: {source.card.get('source', '')}; test: {target.card.get('source', '')}",
        "licence": f"train and val: {source.card.get('licence', '')}; test: {target.card.get('licence', '')}",
        "synthetic": bool(source.card.get("synthetic") and target.card.get("synthetic")),
        "verified": bool(source.card.get("verified") and target.card.get("verified")),
        "note": _note(first, source, second, target),
        "series": len(splits["train"]),
        "transfer": {
            "source": first,
            "target": second,
            "fingerprints": [source.fingerprint, target.fingerprint],
        },
    }
    if len(scaler.names) <= MOST_SCALED:
        card["scaler"] = scaler.to_dict()
    return Dataset(
        name="timeseries.transfer",
        splits=splits,
        classes=(),
        # a part of the rows of the source is not seen, but scaled by: its own fingerprint stands for it
        fingerprint=fingerprint(
            splits, (card["frequency"], card["period"], source.fingerprint, target.fingerprint)
        ),
        card=card,
        published=_published(source, target),
        copy=_copy(first, source, second, target),
    )


def _sides(config: TransferConfig) -> tuple[NamedDataset, NamedDataset]:
    return (
        named_dataset(config.source, config.source_options, domain="timeseries", option="source"),
        named_dataset(config.target, config.target_options, domain="timeseries", option="target"),
    )


def _called(name: str, options: dict[str, Any]) -> str:
    """A data set and its options in words, without the pack's own prefix."""
    return label(Choice(name=name.removeprefix("timeseries."), **options))


def _split(name: str, data: Dataset, split: str) -> SeriesSplit:
    held = data.splits.get(split)
    if held is None:
        raise DataError(
            f"{name} has no {split} split: it cannot be the {'target' if split == 'test' else 'source'}"
        )
    if not isinstance(held, SeriesSplit) or "period" not in data.card:
        raise DataError(f"{name} holds no series to forecast: transfer takes data sets of forecasting")
    return held


def _own(name: str, data: Dataset) -> Scaler:
    """The statistics of the training rows."""
    train = _split(name, data, "train")
    return train.scaler or Scaler.fit(train)


def _note(first: str, source: Dataset, second: str, target: Dataset) -> str:
    seasons = [int(data.card["period"]) for data in (source, target)]
    said = [
        f"trained and validated on {first}, tested on {second}, whose training rows were not seen and scale it",
        f"the season is {second}'s, {seasons[1]} rows"
        + (f" ({seasons[0]} in the source)" if len(set(seasons)) > 1 else ""),
    ]
    if source.card.get("frequency") != target.card.get("frequency"):
        said.append(
            f"frequencies {source.card.get('frequency') or 'unknown'} and {target.card.get('frequency') or 'unknown'}"
        )
    notes = [
        f"{name}: {data.card['note']}"
        for name, data in ((first, source), (second, target))
        if data.card.get("note")
    ]
    return "; ".join(said + notes)


def _published(source: Dataset, target: Dataset) -> Published | None:
    """The figures of the splits that are taken of each, where both have any."""
    if source.published is None or target.published is None:
        return None
    counts = {split: count for split, count in source.published.counts.items() if split in ("train", "val")}
    counts |= {split: count for split, count in target.published.counts.items() if split == "test"}
    sources = dict.fromkeys((source.published.source, target.published.source))
    return Published(counts, source=" and ".join(sources)) if len(counts) == 3 else None


def _copy(first: str, source: Dataset, second: str, target: Dataset) -> Copy | None:
    copies = [
        (name, data.copy) for name, data in ((first, source), (second, target)) if data.copy is not None
    ]
    if not copies:
        return None
    worst = max((copy.kind for _, copy in copies), key=_COPIES.index)
    return Copy(worst, "; ".join(f"{name}: {copy.detail}" for name, copy in copies))
