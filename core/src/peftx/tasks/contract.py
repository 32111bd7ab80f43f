"""What a domain pack writes to become trainable: one class that knows its models, batches, loss and metrics.

The engine, the evaluation protocol, the baselines, the records and the command line come from core and see
only this contract, so they hold for images, waveforms and point clouds alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from peftx.adapters import adapted
from peftx.adapters.host import root_board
from peftx.errors import UserError

if TYPE_CHECKING:
    from peftx.data.contract import DataContext, Dataset

#: One batch: named tensors, the first dimension of each is B.
Batch = dict[str, Tensor]


class Batches(Protocol):
    """The batches of one pass over a split; the number of batches is known before the first."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class Meter(Protocol):
    """Accumulates a metric over batches. Exact: integers are counted, sums are kept in float64.

    It may have a method `details` as well, see `DetailedMeter`.
    """

    def update(self, outputs: Any, batch: Batch) -> None: ...

    def compute(self) -> dict[str, float]: ...


@runtime_checkable
class DetailedMeter(Meter, Protocol):
    """A meter that can say what stands behind its scores: bins, counts by class, whatever a report may draw."""

    def details(self) -> dict[str, Any]:
        """Return them JSON-ready: without NaN, and of a size that depends on the classes, not on the samples."""
        ...


class Scores(dict[str, float]):
    """Scores by name; `details` holds what stands behind them, JSON-ready, {} for nothing.

    A dict in every other way: equal to a plain one with the same scores.
    """

    def __init__(
        self,
        scores: Mapping[str, float] | Iterable[tuple[str, float]] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(scores)
        self.details: dict[str, Any] = dict(details or {})


@dataclass(frozen=True, slots=True)
class ModelSource:
    """The base model of a run.

    `build`: set when `name` is registered; takes the number of outputs of a fresh head (None: leave the model
    as it is) and returns a new model. None when the name is free text that the task's own pack understands
    (any timm name).
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    build: Callable[[int | None], nn.Module] | None = None


class Task(ABC):
    """A model, data, a loss and metrics.

    Subclasses set the class attributes and write the abstract methods. A task never keeps a model: it builds
    fresh ones and is handed the one to use.

    `primary`: the metric that ranks, and selects on validation. `selects`: the metric that selects there instead, where
    validation data cannot give the primary one (they hold none of what the test data are scored on), with its own
    direction; empty for `primary`. `units`: unit of each metric, for tables. `notes`: sentences
    a reader of the result must know (weights missing, head dropped); stored in the record. `workers`: threads
    that may prepare batches, 0 for as many as the task thinks right. `suffixes`: endings of the files that `predict`
    takes out of a folder, lower case (".png"); none: files have to be named one by one. `calibration`: what `calibrate`
    returned for that model, {} where it was not asked. `predict_options`: what `predict` is asked besides the files, of
    the class that ``TaskSpec.predict_config`` names; None where a task has none, or nothing is predicted.
    """

    primary: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    selects: ClassVar[str] = ""
    selects_higher_is_better: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {}
    suffixes: ClassVar[tuple[str, ...]] = ()
    workers: int = 0

    def __init__(self, config: Any, data: Dataset, model: ModelSource, ctx: DataContext) -> None:
        self.config = config
        self.data = data
        self.model = model
        self.ctx = ctx
        self.notes: list[str] = []
        self.calibration: Mapping[str, Any] = {}
        self.predict_options: Any = None

    # --- what a pack writes ---------------------------------------------------------------------------------
    @abstractmethod
    def build_model(self) -> nn.Module:
        """Return a new base model with a head for this data, the same bits for the same state of torch's
        generator.

        Raises:
            ModelError: no such model, or its weights are missing, damaged or of another architecture.
        """

    @abstractmethod
    def batches(
        self, split: str, batch_size: int, *, train: bool = False, generator: torch.Generator | None = None
    ) -> Batches:
        """Return the batches of `split`: in stored order, or shuffled and augmented with `generator` when
        `train`."""

    @abstractmethod
    def forward(self, model: nn.Module, batch: Batch) -> Any:
        """Return what `loss` and the meter read, usually `model(batch[...])`."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean loss over the batch, a scalar."""

    @abstractmethod
    def meter(self) -> Meter:
        """Return a fresh meter whose result holds `n`, the number of samples, and the metric that `decides` on the
        split."""

    @classmethod
    def decides(cls, split: str) -> tuple[str, bool]:
        """The metric that decides on a split, and whether more of it is better: `selects` on validation if there is
        one, else `primary`."""
        if split == "val" and cls.selects:
            return cls.selects, cls.selects_higher_is_better
        return cls.primary, cls.higher_is_better

    # --- what a pack may write ------------------------------------------------------------------------------
    def splits(self) -> list[str]:
        """Names of the splits there are, in the order train, val, test, others."""
        first = ("train", "val", "test")
        names = list(self.data.splits)
        return [s for s in first if s in names] + [s for s in names if s not in first]

    def samples(self, split: str) -> int:
        """How many samples a pass over `split` has: those of the data set, unless the task cuts its own out of them, as
        windows out of a long series."""
        return len(self.data.splits[split])

    @property
    def probe_split(self) -> str:
        """The split whose samples are run for no score (to time, to compare): validation, or training without it."""
        return "val" if "val" in self.splits() else "train"

    def prepare(self, splits: Sequence[str]) -> None:
        """Do now the work that every row of a run shares (decode, cache), and refuse data that do not fit.

        Called once before the first model is built.
        """
        return None

    def context(self, batch: Batch) -> dict[str, Tensor]:
        """Return the side information of a batch, by the names `Offers.context` declares; {} for none.

        Every forward on the batch runs inside ``adapted.context(**these)``.
        """
        return {}

    def recipe(self, method: str) -> dict[str, Any]:
        """Return training settings (fields of TrainConfig) that suit `method` on this task; {} for none."""
        return {}

    def model_card(self) -> dict[str, Any]:
        """Return what the record says about the base model: weights, their checksum, input size."""
        return {}

    def input_card(self) -> dict[str, Any]:
        """Return what the record says of how a sample becomes the model's input: size, scaling, normalisation, and
        what is drawn at random in training; {} for samples that go in as they are. Values are shown as they stand."""
        return {}

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
        """Score `model` on `split`: `Scores`, with the details of the meter, or a plain dict if there are none.

        Call through `peftx.evaluation.evaluate`, which sets eval mode and no_grad.
        """
        meter = self.meter()
        for batch in self.batches(split, batch_size):
            batch = {name: value.to(device) for name, value in batch.items()}
            with autocast(), in_context(self, model, batch):
                outputs = self.forward(model, batch)
            meter.update(outputs, batch)
            if tick is not None:
                tick()
        return Scores(meter.compute(), meter.details() if isinstance(meter, DetailedMeter) else None)

    def exhibit(
        self,
        model: nn.Module,
        split: str,
        details: Mapping[str, Any],
        *,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> dict[str, Any]:
        """Return what a report may show of single samples of `split`, JSON-ready and of bounded size; {} for nothing.

        Called once, after a run's own method was scored, with the `details` of the meter; must not change the model.
        What is returned is kept in the run folder (samples.json), and is the only part of the data that leaves the data
        set: an option of the task's should switch it off.
        """
        return {}

    def calibrate(
        self,
        model: nn.Module,
        splits: Sequence[str],
        *,
        device: torch.device | str = "cpu",
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> dict[str, Any]:
        """Return what only held-out samples can say about answers on new files, such as how far forecasts are off,
        JSON-ready and of bounded size; {} for nothing.

        Called once, after a run's own method was scored on `splits`: validation is to learn from, another split only to
        measure how well it came out. Must not change the model. What is returned is kept in the run folder
        (calibration.json) and is there as `calibration` when `exhibit`, `predict` and `illustrate` are called.
        """
        return {}

    def predict(
        self, model: nn.Module, inputs: Sequence[Path], *, top: int = 5, device: torch.device | str = "cpu"
    ) -> list[dict[str, Any]]:
        """Return one JSON-ready dict per input file.

        A list of dicts in it is its answers, a line for each; a list of sentences under ``notes`` is what a reader must
        know about them.

        Raises:
            DataError: a file cannot be read; the message names it.
        """
        raise UserError(f"{type(self).__name__} cannot predict on single files")

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
        """Write into `folder`, which is there and empty, a file for each input that shows where its answer, as
        `predict` gave it, comes from; return them.

        Raises:
            UserError: the task has no such pictures, or one cannot be written.
        """
        raise UserError(f"{type(self).__name__} cannot show where an answer comes from: leave --explain out")


def in_context(task: Task, model: nn.Module, batch: Batch) -> AbstractContextManager[Any]:
    """The block a forward of `model` on `batch` runs in: its side information, if the task has any."""
    values = task.context(batch)
    if not values or root_board(model) is None:
        return nullcontext()
    return adapted(model).context(**values)


def batch_count(batch: Batch) -> int:
    """Number of samples in a batch: the first dimension of its first tensor."""
    return int(next(iter(batch.values())).shape[0])
