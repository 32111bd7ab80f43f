"""From samples with classes to a data set: a validation split of the training samples, and what a task has to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftx.data.contract import Dataset, Published
from peftx.data.copies import Copy
from peftx.data.splits import limit, split
from peftx.errors import DataError
from peftx_timeseries.config.classification import SamplesConfig
from peftx_timeseries.series.samples import SampleSplit, channel_scaler, sample_fingerprint

__all__ = ["make_samples"]


def make_samples(
    name: str,
    train: SampleSplit,
    test: SampleSplit,
    classes: Sequence[str],
    config: SamplesConfig,
    *,
    source: str,
    licence: str,
    notes: Sequence[str] = (),
    synthetic: bool = False,
    verified: bool = True,
    published: Published | None = None,
    copy: Copy | None = None,
) -> Dataset:
    """Return the data set of some training and test samples; validation is drawn from the training samples.

    Its card says, besides the usual: `shape` (``channels``; ``length``, steps of the longest sample of all; ``train``,
    samples to train on), and `scaler`, mean and deviation of each channel over the training samples.

    Raises:
        DataError: samples differ in their channels, a split has none, there are fewer than two classes, or a class
            would be left without a sample to train on.
    """
    names = tuple(classes)
    for part, held in (("train", train), ("test", test)):
        if not len(held):
            raise DataError(f"{name}: there is no {part} sample")
    if len(names) < 2:
        raise DataError(f"{name} has {len(names)} class, and classification needs at least two")
    channels = train.values[0].shape[1]
    for part, held in (("train", train), ("test", test)):
        for number, one in enumerate(held.values, 1):
            if one.shape[1] != channels:
                raise DataError(
                    f"{name}: {part} sample {number} has {one.shape[1]} channels, and the first to train on has "
                    f"{channels}: all samples need the same"
                )
    splits = {"train": train, "test": test}
    if config.val_fraction:
        val, rest = split(train.labels, (config.val_fraction,), config.split_seed, names)
        splits = {"train": train.select(rest), "val": train.select(val), "test": test}
    kept = limit(splits["train"].labels, config.limit_train, config.split_seed)
    said = list(notes)
    if len(kept) < len(splits["train"]):
        said.append(f"trained on {len(kept):,} of {len(splits['train']):,} samples")
        splits["train"] = splits["train"].select(kept)
    absent = [names[label] for label in sorted(set(range(len(names))) - set(splits["train"].labels.tolist()))]
    if absent:
        said.append(f"no sample of {', '.join(absent[:8])} to train on")
    lengths = [length for part in splits.values() for length in part.lengths.tolist()]
    shortest, longest = min(lengths), max(lengths)
    if shortest < longest:
        said.append(f"samples of {shortest:,} to {longest:,} steps")
    card: dict[str, Any] = {
        "source": source,
        "licence": licence,
        "synthetic": synthetic,
        "verified": verified,
        "note": "; ".join(said),
        "shape": {"channels": channels, "length": longest, "train": len(splits["train"])},
        "scaler": channel_scaler(splits["train"]).to_dict(),
    }
    return Dataset(
        name=name,
        splits=splits,
        classes=names,
        fingerprint=sample_fingerprint(splits, names),
        card=card,
        published=published,
        copy=copy,
    )
