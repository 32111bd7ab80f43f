"""`timeseries.anomaly`: which rows are anomalous, by how badly a model that saw normal ones reconstructs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from peftx.data.contract import DataContext, Dataset
from peftx.errors import ConfigError, DataError
from peftx.tasks import Batch, ModelSource, Scores, Task
from peftx_timeseries.config.anomaly import AnomalyConfig
from peftx_timeseries.config.models import HostConfig
from peftx_timeseries.metrics.anomaly import AnomalyMeter, RowScores
from peftx_timeseries.models.hosts import trunk_of
from peftx_timeseries.models.reconstructor import Reconstructor
from peftx_timeseries.series.blocks import Blocks
from peftx_timeseries.series.marked import demand_marked
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.series.series import Series, SeriesSplit
from peftx_timeseries.tasks.alarms import SUFFIXES, alarms
from peftx_timeseries.tasks.rows import RowShapes

__all__ = ["AnomalyDetection", "BlockBatches"]

_REFERENCE = {"train_val": ("train", "val"), "val": ("val",), "train_test": ("train", "val")}
#: Options of a host that say how a channel is cut into patches, of which there are none here.
_OF_FORECASTS = ("patch", "stride", "residual", "share")


class AnomalyDetection(Task):
    """Rows are scored by the error of their reconstruction, in windows of all channels, standardised by the training
    rows.

    Training rows are normal and their labels, where a source has any, are never looked at. Validation has no anomaly,
    so what selects is the reconstruction error; what ranks on test is the average precision, which needs no threshold:
    an F1 at one ratio of alarms ranks the guess of the ratio as much as the scores, and point adjustment rewards
    noise.

    Batches are ``{"x": (B, L, M) float32, "start": (B,), "skip": (B,)}``: windows, the first row of each, and how many
    of its rows count in another; ``label`` and ``series`` (B, L) where rows are labelled.
    """

    primary: ClassVar[str] = "average_precision"
    selects: ClassVar[str] = "reconstruction_error"
    selects_higher_is_better: ClassVar[bool] = False
    suffixes: ClassVar[tuple[str, ...]] = SUFFIXES

    config: AnomalyConfig

    def __init__(self, config: AnomalyConfig, data: Dataset, model: ModelSource, ctx: DataContext) -> None:
        super().__init__(config, data, model, ctx)
        self.channels = tuple(str(one) for one in data.card.get("channels", ()))
        self.row_shapes = RowShapes(config.length, len(self.channels))
        self._blocks: dict[tuple[str, int], Blocks] = {}
        self._scaler: Scaler | None = None
        self._card: dict[str, Any] = {}

    @property
    def ratio(self) -> float:
        """Per cent of the reference rows that raise an alarm: the option, the data set's protocol, or 1."""
        return float(self.config.ratio or self.data.card.get("ratio", 1.0))

    @property
    def scaler(self) -> Scaler | None:
        """The statistics of the training rows, of the card or of the training split; None where neither is here."""
        if self._scaler is None:
            stored, train = self.data.card.get("scaler"), self.data.splits["train"]
            if stored is not None:
                self._scaler = Scaler.from_dict(dict(stored))
            elif isinstance(train, SeriesSplit):
                self._scaler = train.scaler or Scaler.fit(train)
        return self._scaler

    def statistics(self, one: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation (M,) that a series is standardised by; its own where there are none of the training.

        Raises:
            DataError: its channels are others than those of the training.
        """
        return (self.scaler or Scaler.fit(SeriesSplit([one]))).rows_for(one)

    def blocks(self, split: str, *, scoring: bool = False) -> Blocks:
        """The windows of a split: as they are trained on, or as rows are `scoring`; of held-out splits these are one.

        Raises:
            DataError: the split is one of no series, or a series has fewer rows than a window.
        """
        step = self.config.test_stride or self.config.length
        stride = self.config.stride if split == "train" and not scoring else step
        if (split, stride) not in self._blocks:
            held = self.data.splits[split]
            if not isinstance(held, SeriesSplit):
                raise DataError(
                    "these samples are no time series: anomaly detection takes data sets of the time-series pack"
                )
            self._blocks[split, stride] = Blocks(
                held, self.config.length, self.statistics, stride=stride, what=split
            )
        return self._blocks[split, stride]

    def samples(self, split: str) -> int:
        """Windows of a split."""
        return len(self.blocks(split))

    def build_model(self) -> nn.Module:
        """Return the host as a reconstructor.

        Raises:
            ModelError: the host cannot be had.
            ConfigError: a row has more channels than a token has places, a window more rows than the host has
                positions, or the host was given options of forecasts.
        """
        options = self.model.options
        unasked = HostConfig()
        for name in _OF_FORECASTS:
            if options.get(name, getattr(unasked, name)) != getattr(unasked, name):
                raise ConfigError(
                    f"--model.{name} is about forecasts: here a row of all channels is a token; leave it out"
                )
        trunk = trunk_of(self.model, offline=self.ctx.offline)
        if trunk.positions and self.config.length > trunk.positions:
            raise ConfigError(
                f"a window of {self.config.length} rows is as many tokens, and {self.model.name} has {trunk.positions} "
                "positions: take a shorter --task.length"
            )
        model = Reconstructor(
            trunk,
            channels=len(self.channels),
            segment=self.config.segment,
            linear=self.config.embedding == "linear",
            features=self.config.features,
            seed=int(options.get("projection_seed", 0)),
        )
        self._card = {
            "host": self.model.name,
            "pretrained": bool(options.get("pretrained", True)),
            "channels": len(self.channels),
            "features": model.features,
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        return model

    def model_card(self) -> dict[str, Any]:
        """The host, whether it was pretrained, channels, projected features, and the parameters of all."""
        return self._card

    def prepare(self, splits: Sequence[str]) -> None:
        """Cut the windows of the splits, and say how many there are.

        Raises:
            DataError: a split is too short for a window, or the test rows have no labels or no anomaly.
        """
        if "test" in splits:
            demand_marked(self.data.splits["test"], f"the test split of {self.data.name}")
        counts = {split: len(self.blocks(split)) for split in splits}
        held = ", ".join(f"{count:,} {split}" for split, count in counts.items())
        self.notes.append(f"windows of {self.config.length} rows and {len(self.channels)} channels: {held}")
        if "test" in splits and self.config.threshold == "train_test":
            self.notes.append(
                "the threshold is a percentile of training, validation and test scores, as in TSLib: precision, recall "
                "and F1 were helped by the test set"
            )

    def batches(
        self, split: str, batch_size: int, *, train: bool = False, generator: torch.Generator | None = None
    ) -> BlockBatches:
        """Batches of windows; every one of them, the last batch may be smaller."""
        return BlockBatches(
            self.blocks(split), batch_size, generator=generator if train else None, shuffle=train
        )

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:  # (B, L, M)
        """Return the reconstruction, standardised."""
        if getattr(model, "by_row", False):
            rows = batch["start"][:, None] + torch.arange(batch["x"].shape[1], device=batch["start"].device)
            return model(batch["x"], rows)
        return model(batch["x"])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean squared error of the reconstruction."""
        return (self.forward(model, batch).float() - batch["x"]).square().mean()

    def meter(self) -> AnomalyMeter:
        """Return a fresh meter without a threshold."""
        return AnomalyMeter(kinds=self._kinds())

    def evaluate(
        self,
        model: nn.Module,
        split: str,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        tick: Callable[[], None] | None = None,
    ) -> dict[str, float]:
        """Score `model` on `split`; on test its own scores of training and validation rows give the threshold."""
        blocks = self.blocks(split, scoring=split != "train")
        meter = self.meter()
        if blocks.labels is not None:
            reference = self.reference(model, batch_size, device=device, autocast=autocast)
            own = self.config.threshold == "train_test"
            meter = AnomalyMeter(self.ratio, reference, own=own, kinds=self._kinds())
        self._run(model, blocks, batch_size, meter, device, autocast, tick)
        return Scores(meter.compute(), meter.details())

    def reference(
        self,
        model: nn.Module,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> NDArray[np.float64]:
        """Scores of the rows that the threshold is a percentile of, apart from test rows; each row once.

        Raises:
            ConfigError: they are to be validation rows, and there are none.
        """
        asked = _REFERENCE[self.config.threshold]
        splits = [split for split in asked if split in self.data.splits]
        if not splits:
            raise ConfigError(
                f"{self.data.name} has no validation rows to make a threshold of: take --task.threshold train_val"
            )
        train = self.data.splits["train"]
        # trained on and validated on, as in TSLib: these rows are there already
        if splits == ["train", "val"] and _inside(self.data.splits["val"], train):
            splits = ["train"]
        found = []
        for split in splits:
            scores = RowScores()
            self._run(model, self.blocks(split, scoring=True), batch_size, scores, device, autocast, None)
            found.append(scores.compute()[1])
        return np.concatenate(found)

    def calibrate(
        self,
        model: nn.Module,
        splits: Sequence[str],
        *,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> dict[str, Any]:
        """The threshold for new files: that of the validation rows, and of the training rows unless ``threshold val``
        leaves them out; never of test rows."""
        scores = self.reference(model, 256, device=device, autocast=autocast)
        return {
            "threshold": float(np.percentile(scores, 100 - self.ratio)),
            "ratio": self.ratio,
            "rows": len(scores),
        }

    def predict(
        self, model: nn.Module, inputs: Sequence[Path], *, top: int = 5, device: torch.device | str = "cpu"
    ) -> list[dict[str, Any]]:
        """Return score and alarm of each row of each table, see `peftx_timeseries.tasks.alarms.alarms`; `top` means
        nothing.

        Raises:
            DataError: a file cannot be read, lacks a channel, or has fewer rows than a window.
        """
        return alarms(self, model, [Path(path) for path in inputs], device)

    def recipe(self, method: str) -> dict[str, Any]:
        """Return training settings: more steps for the few windows there are than GPT4TS's ten epochs of 128."""
        return {"epochs": 20, "batch_size": 32, "lr": 1e-3, "weight_decay": 0.0, "patience": 5}

    def scores_of(
        self, model: nn.Module, one: Series, device: torch.device | str
    ) -> NDArray[np.float64]:  # (rows,)
        """Score the rows of a series.

        Raises:
            DataError: it has fewer rows than a window, or a missing value.
        """
        step = self.config.test_stride or self.config.length
        blocks = Blocks(SeriesSplit([one]), self.config.length, self.statistics, stride=step)
        scores = RowScores()
        self._run(model, blocks, 256, scores, device, nullcontext, None)
        return scores.compute()[1]

    def _run(
        self,
        model: nn.Module,
        blocks: Blocks,
        batch_size: int,
        into: AnomalyMeter | RowScores,
        device: torch.device | str,
        autocast: Callable[[], AbstractContextManager[Any]],
        tick: Callable[[], None] | None,
    ) -> None:
        for batch in BlockBatches(blocks, batch_size):
            batch = {name: value.to(device) for name, value in batch.items()}
            with torch.no_grad(), autocast():
                outputs = self.forward(model, batch)
            into.update(outputs, batch)
            if tick is not None:
                tick()

    def _kinds(self) -> tuple[str, ...]:
        return tuple(str(kind) for kind in self.data.card.get("kinds", ()))


def _inside(one: Any, other: Any) -> bool:
    """Whether all rows of a split are rows of another one."""
    return (
        isinstance(one, SeriesSplit)
        and isinstance(other, SeriesSplit)
        and len(one) == len(other)
        and all(
            a.values is b.values and b.begin <= a.begin and a.end <= b.end
            for a, b in zip(one.series, other.series, strict=True)
        )
    )


class BlockBatches:
    """One pass over the windows of a split."""

    def __init__(
        self,
        blocks: Blocks,
        batch_size: int,
        *,
        generator: torch.Generator | None = None,
        shuffle: bool = False,
    ) -> None:
        self.blocks, self.batch_size = blocks, batch_size
        self.generator, self.shuffle = generator, shuffle

    def __len__(self) -> int:
        return -(-len(self.blocks) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        count = len(self.blocks)
        order = torch.randperm(count, generator=self.generator) if self.shuffle else torch.arange(count)
        for windows in order.split(self.batch_size):
            held = windows.numpy()
            batch = {
                "x": torch.from_numpy(self.blocks.cut(held)),
                "start": torch.from_numpy(self.blocks.start[held]),
                "skip": torch.from_numpy(self.blocks.skip[held]),
            }
            if self.blocks.labels is not None:
                rows = self.blocks.places(held)
                batch["label"] = torch.from_numpy(self.blocks.labels[rows].astype(np.int64))
                batch["series"] = torch.from_numpy(self.blocks.owner[rows])
            yield batch
