"""`timeseries.classification`: one class for each sample of several channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from peftx.data.contract import DataContext, Dataset
from peftx.errors import ConfigError, DataError
from peftx.evaluation.classification import ClassificationMeter
from peftx.tasks import Batch, ModelSource, Task
from peftx_timeseries.config.classification import ClassificationConfig
from peftx_timeseries.data.ts import read_ts
from peftx_timeseries.models.classifier import SeriesClassifier
from peftx_timeseries.models.forecaster import patches_of
from peftx_timeseries.models.hosts import trunk_of
from peftx_timeseries.series.samples import SampleSplit
from peftx_timeseries.series.scaling import Scaler
from peftx_timeseries.tasks.samples import SampleBatches, Samples, SampleShapes, prepared

__all__ = ["Classification"]

#: Samples that `predict` takes at a time.
PREDICTED = 64

#: Where they come from: the official scripts of GPT4TS and One-for-All take RAdam, 50 epochs, batches of 64, and a rate
#: of 1e-4 to 2e-3 by problem, 5e-4 for most. None was searched here.
_RECIPE: dict[str, Any] = {"epochs": 50, "batch_size": 64, "weight_decay": 0.0, "lr": 1e-3}
_RATES = {"timeseries.one_for_all": 5e-4, "timeseries.gpt4ts": 5e-4}


class Classification(Task):
    """Classification of series with cross-entropy; accuracy in percent ranks.

    Batches are ``{"x": (B, M, L) float32, "y": (B,) int64}``, and ``seen`` (B, L) where samples are shorter than the
    input: 1 up to their end. Behind it `x` is 0. Values that are missing inside a sample are on a line between their
    neighbours.
    """

    primary: ClassVar[str] = "accuracy"
    units: ClassVar[Mapping[str, str]] = {"accuracy": "%", "accuracy_top5": "%", "loss": "nats"}
    suffixes: ClassVar[tuple[str, ...]] = (".ts", ".ts.gz")
    #: steps of a patch and between two, where the host's options leave them open
    patching: ClassVar[tuple[int, int]] = (8, 4)

    config: ClassificationConfig

    def __init__(
        self, config: ClassificationConfig, data: Dataset, model: ModelSource, ctx: DataContext
    ) -> None:
        super().__init__(config, data, model, ctx)
        shape = data.card.get("shape")
        if not isinstance(shape, Mapping) or not {"channels", "length", "train"} <= shape.keys():
            raise DataError(
                f"{data.name} holds no series with classes: take timeseries.patterns, timeseries.uea:NAME, or another "
                "data set of labelled series"
            )
        #: what classifiers are built from
        self.sample_shapes = SampleShapes(
            int(shape["channels"]),
            config.length or int(shape["length"]),
            len(data.classes),
            int(shape["train"]),
        )
        stored = data.card.get("scaler")
        self._scaler = None if stored is None else Scaler.from_dict(dict(stored))
        self._held: dict[str, Samples] = {}
        self._padded: bool | None = None
        self._card: dict[str, Any] = {}

    def held(self, split: str) -> Samples:
        """All samples of a split, scaled and of one length.

        Raises:
            DataError: they are no series with classes.
        """
        if split not in self._held:
            self._held[split] = self.prepared(_labelled(self.data.splits[split], self.data.name))
        return self._held[split]

    def prepared(self, split: SampleSplit) -> Samples:
        """Scale samples, fill what is missing, and cut or pad them to the length of the input."""
        shapes = self.sample_shapes
        return prepared(split, shapes.length, self.config.scaling, self._scaler, shapes.channels)

    @property
    def padded(self) -> bool:
        """Whether a sample of the data set is shorter than the input, so that batches have a mask."""
        if self._padded is None:
            self._padded = any(
                bool((split.lengths < self.sample_shapes.length).any())
                for split in self.data.splits.values()
                if isinstance(split, SampleSplit)
            )
        return self._padded

    def build_model(self) -> nn.Module:
        """Return the host between its two projections.

        Raises:
            ModelError: the host cannot be had.
            ConfigError: the input is shorter than a patch, has more patches than the host has positions, or a linear
                forecast was asked for.
        """
        options, shapes = self.model.options, self.sample_shapes
        if options.get("residual", "none") != "none":
            raise ConfigError(
                f"--model.residual {options['residual']} is for a forecast, and a classification has none"
            )
        patch = int(options.get("patch") or min(self.patching[0], shapes.length))
        stride = int(options.get("stride") or min(self.patching[1], patch))
        if patch > shapes.length:
            raise ConfigError(
                f"samples of {shapes.length} steps are shorter than a patch of {patch}: take a shorter --model.patch"
            )
        trunk = trunk_of(self.model, offline=self.ctx.offline)
        patches = patches_of(shapes.length, patch, stride)
        if trunk.positions and patches > trunk.positions:
            raise ConfigError(
                f"samples of {shapes.length} steps make {patches} patches, and {self.model.name} has "
                f"{trunk.positions} positions: take a longer --model.stride or a shorter --task.length"
            )
        model = SeriesClassifier(
            trunk,
            channels=shapes.channels,
            length=shapes.length,
            classes=shapes.classes,
            patch=patch,
            stride=stride,
            seed=int(options.get("projection_seed", 0)),
        )
        self._card = {
            "host": self.model.name,
            "pretrained": bool(options.get("pretrained", True)),
            "patch": patch,
            "stride": stride,
            "patches": patches,
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        return model

    def model_card(self) -> dict[str, Any]:
        """The host, whether it was pretrained, its patches, and the parameters of all."""
        return self._card

    def input_card(self) -> dict[str, Any]:
        """Channels and steps of the input, and how it is scaled."""
        shapes = self.sample_shapes
        return {"channels": shapes.channels, "steps": shapes.length, "scaling": self.config.scaling}

    def prepare(self, splits: Sequence[str]) -> None:
        """Prepare the samples of the splits.

        Raises:
            DataError: they are no series with classes, a split is empty, or all training samples are of one class.
        """
        for split in splits:
            held = self.held(split)
            if not len(held):
                raise DataError(f"the {split} split of {self.data.name} is empty")
            if split == "train" and len(held.y.unique()) < 2:
                only = self.data.classes[int(held.y[0])]
                raise DataError(
                    f"all samples to train on of {self.data.name} are of one class ({only!r}): classification needs at "
                    "least two"
                )
        longest = self.sample_shapes.length
        cut = 0
        for split in splits:
            cut += int((_labelled(self.data.splits[split], self.data.name).lengths > longest).sum())
        if cut:
            self.notes.append(f"{cut:,} samples of more than {longest:,} steps are cut at their end")

    def batches(
        self, split: str, batch_size: int, *, train: bool = False, generator: torch.Generator | None = None
    ) -> SampleBatches:
        """Batches of samples; every one of them, the last batch may be smaller."""
        return SampleBatches(
            self.held(split),
            batch_size,
            padded=self.padded,
            shuffle=train,
            generator=generator if train else None,
        )

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:  # (B, C)
        """Return the scores of the classes."""
        return model(batch["x"], batch["seen"]) if "seen" in batch else model(batch["x"])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy in nats, with smoothed labels where asked for."""
        scores = self.forward(model, batch).float()
        return cross_entropy(scores, batch["y"], label_smoothing=self.config.label_smoothing)

    def meter(self) -> ClassificationMeter:
        """Return a fresh counter of accuracy, loss and calibration."""
        return ClassificationMeter(self.sample_shapes.classes, key="y")

    def recipe(self, method: str) -> dict[str, Any]:
        """Return the official scripts' epochs and batches, and for their methods a rate of 5e-4; others get 1e-3."""
        return _RECIPE | ({"lr": _RATES[method]} if method in _RATES else {})

    def predict(
        self, model: nn.Module, inputs: Sequence[Path], *, top: int = 5, device: torch.device | str = "cpu"
    ) -> list[dict[str, Any]]:
        """Return for every file its samples, each with its class and the `top` most probable.

        A file is a ``.ts`` or ``.ts.gz`` file, whose samples may have classes of their own, which are told beside the
        answers as ``stated``. A row of ``samples`` has ``sample`` (from 1), ``class``, ``probability`` and, as text,
        ``top``: classes and probabilities, the most probable first. Where scores are no logarithms of probabilities
        (`timeseries.nearest`, `timeseries.rocket`) only their order means anything.

        Raises:
            DataError: a file is missing or damaged, or its samples have other channels than those trained on.
        """
        found = []
        for path in map(Path, inputs):
            if not path.is_file():
                raise DataError(f"no such file: {path}; a .ts file was expected")
            file = read_ts(path)
            if file.dimensions != self.sample_shapes.channels:
                raise DataError(
                    f"{path.name} has {file.dimensions} dimensions, and the run was trained on "
                    f"{self.sample_shapes.channels}"
                )
            split = SampleSplit([one.values for one in file.samples], [0] * len(file.samples))
            answers = self._answers(model, self.prepared(split), top, device)
            for answer, one in zip(answers, file.samples, strict=True):
                if one.label is not None:
                    answer["stated"] = file.header.classes[one.label]
            longest = self.sample_shapes.length
            cut = int((split.lengths > longest).sum())
            notes = (
                [f"{path.name}: {cut} samples of more than {longest} steps were cut at their end"]
                if cut
                else []
            )
            found.append({"path": str(path), "samples": answers, "notes": notes})
        return found

    def _answers(
        self, model: nn.Module, samples: Samples, top: int, device: torch.device | str
    ) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        padded = bool((samples.ends < samples.x.shape[2]).any())
        for batch in SampleBatches(samples, PREDICTED, padded=padded, shuffle=False, generator=None):
            batch = {name: value.to(device) for name, value in batch.items()}
            probabilities = self.forward(model, batch).float().softmax(1).cpu()
            values, indices = probabilities.topk(min(max(top, 1), self.sample_shapes.classes))
            for likely, which in zip(values.tolist(), indices.tolist(), strict=True):
                names = [self.data.classes[index] for index in which]
                ranked = ", ".join(f"{name} {value:.3f}" for name, value in zip(names, likely, strict=True))
                answers.append(
                    {"sample": len(answers) + 1, "class": names[0], "probability": likely[0], "top": ranked}
                )
        return answers


def _labelled(split: Any, name: str) -> SampleSplit:
    if not isinstance(split, SampleSplit):
        raise DataError(
            f"{name} holds no series with classes: classification takes data sets of labelled series"
        )
    return split
