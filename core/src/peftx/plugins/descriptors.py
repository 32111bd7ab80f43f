"""What a plugin declares: small frozen records with targets as strings, so that listing them imports nothing
heavy.

Every `target` and `config` reads ``"module:object"`` and is imported on first use. Every name reads
``"domain.name"``, and a plugin may only declare names of its own domain. A `config` target must live in a
torch-free module: option tables and validation run before torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CommandSpec",
    "DatasetSpec",
    "KernelSpec",
    "MethodSpec",
    "ModelSpec",
    "Needs",
    "Offers",
    "PanelSpec",
    "Spec",
    "SuiteSpec",
    "TaskSpec",
]

METHOD_KINDS = ("adapter", "procedure", "codec", "model")
METHOD_STATES = ("stable", "experimental")
PANEL_PAGES = ("run", "bench")


@dataclass(frozen=True, slots=True)
class Needs:
    """What a method asks of a task.

    `sites`: kinds of places it can adapt, any of which is enough (empty: no demand). `objective`: the one
    objective it trains with (empty: whatever the task has). `context`: side information every sample must
    carry, all of it.
    """

    sites: tuple[str, ...] = ()
    objective: str = ""
    context: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Offers:
    """What a task gives a method: kinds of sites its models have (empty: unknown, anything may fit),
    objectives, and the side information its batches carry."""

    sites: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ("supervised",)
    context: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MethodSpec:
    """A named thing one can run. `kind`: adapter (attaches to a model), procedure (a way to train), codec (a
    data-space transform) or model (a comparison row). `size`: its whole-number option that scales how many parameters
    are trained, such as ``rank``, for comparisons at equal size (empty: it has none). `trained`: False for a model that
    no gradient step trains (a naive forecast, a closed form): it has no learning rate to set or to search. `tasks`:
    full names of the tasks that a model can be compared on (empty: all of its domain)."""

    name: str
    summary: str
    target: str
    config: str
    kind: str = "adapter"
    paper: str = ""
    licence: str = ""
    tags: tuple[str, ...] = ()
    needs: Needs = Needs()
    status: str = "stable"
    size: str = ""
    trained: bool = True
    tasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """Model + data + loss + metrics; the first task a plugin declares is its domain's default.

    `models`: optional ``"module:function"``, torch-free, called with a model name the registry does not know;
    it returns False, True, or the ``"module:Class"`` of the options such a model takes, or raises ModelError
    (a pack that accepts any timm name checks it here). `predict_config`: optional ``"module:Class"``, torch-free, of
    the options that `peftx predict` takes for a run of this task, besides its own. `reference`: the baseline that every
    table tells the gap to, full name; the simple answer a method has to beat.
    """

    name: str
    summary: str
    target: str
    config: str
    offers: Offers = Offers()
    default_data: str = ""
    default_model: str = ""
    default_method: str = ""
    baselines: tuple[str, ...] = ("core.head", "core.lora", "core.full")
    models: str = ""
    predict_config: str = ""
    reference: str = ""


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A data set and how it is found.

    `target`: ``load(config, ctx) -> Dataset``. `locate`: torch-free ``locate(config, ctx) -> None`` that
    raises DataError or NetworkError in well under a second when files are absent and cannot be fetched.
    `parametric`: the name takes an argument after a colon (``imagefolder:PATH``), handed to the config as its
    option `path`. `verified`: the loader was run on the real files and agreed with the published counts.
    """

    name: str
    summary: str
    target: str
    config: str = ""
    aliases: tuple[str, ...] = ()
    licence: str = ""
    source: str = ""
    size: str = ""
    synthetic: bool = False
    verified: bool = True
    locate: str = ""
    parametric: bool = False


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A base model. `params`: its number of parameters when known without building it. `trunk`: it has no head of its
    own, since the task it is for brings one."""

    name: str
    summary: str
    target: str
    config: str = ""
    licence: str = ""
    source: str = ""
    params: int | None = None
    trunk: bool = False


@dataclass(frozen=True, slots=True)
class SuiteSpec:
    """A grid of runs with a protocol; the target is a `peftx.config.suite.Suite` in a torch-free module.

    `averages`: optional ``"module:function"``, torch-free, that makes the suite's averages: called with the scores of
    one row and seed by the label of the data set, all of the suite's and no other, it returns them by name, the one
    that rows are ordered by first. DataError where they cannot be made.
    """

    name: str
    summary: str
    target: str
    averages: str = ""


@dataclass(frozen=True, slots=True)
class PanelSpec:
    """One more panel of the report of a run or of a bench.

    `target`: ``panel(source) -> peftx.report.Panel | None``, torch-free; None where it has nothing to show. `on`: run
    or bench, which says what `source` is (`peftx.report.RunSource`, `peftx.report.BenchSource`).
    """

    name: str
    title: str
    target: str
    on: str = "run"


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """Another implementation, called `name`, of the kernel op `op`."""

    op: str
    name: str
    target: str


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """A command line command, `peftx domain.name`; the target is a click command."""

    name: str
    summary: str
    target: str


Spec = MethodSpec | TaskSpec | DatasetSpec | ModelSpec | SuiteSpec | KernelSpec | CommandSpec | PanelSpec
