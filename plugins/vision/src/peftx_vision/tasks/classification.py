"""`vision.classification`: one label per image, any vision model with a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from peftx.data.contract import DataContext, Dataset
from peftx.errors import DataError
from peftx.evaluation.classification import ClassificationMeter
from peftx.tasks import Batch, ModelSource, Task
from peftx.tasks.features import FeatureCache
from peftx_vision.config.tasks import ClassificationConfig, TimmConfig
from peftx_vision.data.images import EXTENSIONS, open_image
from peftx_vision.models.weights import provenance
from peftx_vision.tasks import pixels as px
from peftx_vision.tasks.gallery import gallery, illustrate
from peftx_vision.tasks.images import ImageBatches, PreparedSplit
from peftx_vision.tasks.recipes import recipe

__all__ = ["Classification"]

#: Images that `predict` takes at a time.
PREDICTED = 32


class Classification(Task):
    """Image classification with cross-entropy; accuracy is top-1 in percent, and top-5 beside it from six classes on.

    Batches are ``{"images": (B, channels, H, W) float32, "labels": (B,) int64}``.
    """

    primary: ClassVar[str] = "accuracy"
    units: ClassVar[Mapping[str, str]] = {"accuracy": "%", "accuracy_top5": "%", "loss": "nats"}
    suffixes: ClassVar[tuple[str, ...]] = EXTENSIONS

    config: ClassificationConfig

    def __init__(
        self, config: ClassificationConfig, data: Dataset, model: ModelSource, ctx: DataContext
    ) -> None:
        super().__init__(config, data, model, ctx)
        self._spec: px.InputSpec | None = None
        self._splits: dict[str, PreparedSplit] = {}
        self._card: dict[str, Any] = {}
        self._balance: Tensor | None = None

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return len(self.data.classes)

    @property
    def spec(self) -> px.InputSpec:
        """The model's input; builds one model to learn it when none was built yet."""
        if self._spec is None:
            self.build_model()
        assert self._spec is not None
        return self._spec

    def build_model(self) -> nn.Module:
        """Return the base model with a fresh head of C outputs."""
        if self.model.build is not None:
            model = self.model.build(self.classes)
        else:
            from peftx_vision.models.timm_models import build_timm

            options = TimmConfig(**self.model.options)
            model = build_timm(self.model.name, options, self.classes, offline=self.ctx.offline)
        spec = px.input_spec(model, self.config)
        card, notes = provenance(model)
        self._spec = spec
        self._card = {
            **card,
            "input_size": [spec.channels, spec.height, spec.width],
            "parameters": sum(p.numel() for p in model.parameters()),
        }
        self.notes += [note for note in notes if note not in self.notes]
        return model.to(memory_format=torch.channels_last) if self.config.channels_last else model

    def model_card(self) -> dict[str, Any]:
        """Weights, input size, parameter count with the head."""
        return self._card

    def input_card(self) -> dict[str, Any]:
        """Size, resize mode, normalisation by name and figures, augmentation."""
        return px.describe(self.spec, self.config)

    def prepare(self, splits: Sequence[str]) -> None:
        """Check the classes, and prepare the images that fit in memory.

        Raises:
            DataError: fewer than two classes, an empty split, an unreadable image, one smaller than a patch.
        """
        if self.classes < 2:
            only = f" ({self.data.classes[0]!r})" if self.classes else ""
            raise DataError(
                f"{self.data.name} has {self.classes} class{only}: classification needs at least two"
            )
        for name in splits:
            found = self._prepared(name)
            if not len(found):
                raise DataError(f"the {name} split of {self.data.name} is empty")
            if name == "train" and len(found.labels.unique()) < 2:
                only = self.data.classes[int(found.labels[0])]
                raise DataError(
                    f"all training images of {self.data.name} are of one class ({only!r}): "
                    "classification needs at least two"
                )
            found.fill()

    def batches(
        self, split: str, batch_size: int, *, train: bool = False, generator: torch.Generator | None = None
    ) -> ImageBatches:
        """Return batches of the split, shuffled and augmented when `train`."""
        found, classes = self._prepared(split), self.classes
        return ImageBatches(found, batch_size, self.config, train=train, generator=generator, classes=classes)

    @property
    def feature_cache(self) -> FeatureCache:
        """Whether training on cached features is wished for, and the memory they may take."""
        return FeatureCache(self.config.cache_features, self.config.cache_features_mib)

    def feature_obstacle(self) -> str:
        """Say which option changes training images from one epoch to the next."""
        found = self.config.changing
        return (
            f"{' and '.join(found)} {'change' if found[1:] else 'changes'} training images" if found else ""
        )

    def feature_batches(
        self,
        split: str,
        batch_size: int,
        features: Tensor,
        *,
        train: bool = False,
        generator: torch.Generator | None = None,
    ) -> ImageBatches:
        """Return the batches of the split with rows of `features` as images."""
        return ImageBatches(
            self._prepared(split),
            batch_size,
            self.config,
            train=train,
            generator=generator,
            classes=self.classes,
            features=features,
        )

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:  # (B, C)
        """Return the logits."""
        return model(batch["images"])

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean cross-entropy in nats, with smoothed labels and weighted classes where asked for."""
        logits, labels = self.forward(model, batch).float(), batch["labels"]
        weights, smoothing = self._weights(logits.device), self.config.label_smoothing
        if weights is None:
            return cross_entropy(logits, labels, label_smoothing=smoothing)
        # by the samples and not by their weights, so that parts of a batch add up to the whole
        total = cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing, reduction="sum")
        return total / len(labels)

    def meter(self) -> ClassificationMeter:
        """Return a fresh counter of accuracy, loss and calibration."""
        return ClassificationMeter(self.classes)

    def recipe(self, method: str) -> dict[str, Any]:
        """Return the settings of `peftx_vision.tasks.recipes` for this model."""
        return recipe(method, self.model.name)

    def predict(
        self, model: nn.Module, inputs: Sequence[Path], *, top: int = 5, device: torch.device | str = "cpu"
    ) -> list[dict[str, Any]]:
        """Return for every file its `top` classes with their probabilities, most probable first.

        Raises:
            DataError: a file is missing, damaged, not an image, or smaller than a patch.
        """
        results = []
        for at in range(0, len(inputs), PREDICTED):
            paths = inputs[at : at + PREDICTED]
            images = [px.prepare(open_image(Path(path)), self.spec, f"image {path}") for path in paths]
            batch = {"images": px.to_input(torch.stack(images), self.spec).to(device)}
            probabilities = self.forward(model, batch).float().softmax(1).cpu()
            values, indices = probabilities.topk(min(max(top, 1), self.classes))
            for path, likely, which in zip(paths, values.tolist(), indices.tolist(), strict=True):
                names = [self.data.classes[index] for index in which]
                ranked = [
                    {"class": name, "probability": value} for name, value in zip(names, likely, strict=True)
                ]
                results.append({"path": str(path), "class": names[0], "top": ranked})
        return results

    def exhibit(
        self,
        model: nn.Module,
        split: str,
        details: Mapping[str, Any],
        *,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> dict[str, Any]:
        """Return small pictures of the surest mistakes, and maps of where some predictions come from; see `gallery`."""
        return gallery(self, model, split, details, device=device, autocast=autocast)

    def illustrate(
        self,
        model: nn.Module,
        inputs: Sequence[Path],
        answers: Sequence[Mapping[str, Any]],
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> list[Path]:
        """Write for each file the image beside the evidence for its class; see `peftx_vision.tasks.gallery`."""
        return illustrate(self, model, inputs, answers, folder, device=device, autocast=autocast)

    def _weights(self, device: torch.device) -> Tensor | None:  # (C,)
        """N / (C n_c) of the n_c training images of each class; their mean over all N images is 1."""
        if self.config.class_weights == "none":
            return None
        if self._balance is None:
            labels = self._prepared("train").labels
            counts = torch.bincount(labels, minlength=self.classes).clamp(min=1)
            self._balance = len(labels) / (self.classes * counts.float())
        self._balance = self._balance.to(device)
        return self._balance

    def _prepared(self, name: str) -> PreparedSplit:
        if name not in self._splits:
            size = sum(len(split) for split in self.data.splits.values()) * self.spec.bytes
            keep = size <= self.config.cache_mib * 2**20
            self._splits[name] = PreparedSplit(
                name, self.data.splits[name], self.spec, keep=keep, workers=self.workers
            )
        return self._splits[name]
