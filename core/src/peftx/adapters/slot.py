"""What an adapted module carries: its `Slot`, and the `Board` all slots of one model share.

The slot is the one reserved child, ``peftx``, of an adapted module; it holds its adapters' deltas by adapter name
and site label. The board says which adapters a forward uses. It belongs to one model: a deep copy of the model
gets a copy of the board with it, so nothing ever follows another model's adapters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peftx.adapters.base import effective_rows, from_canonical, to_canonical
from peftx.adapters.delta import Delta, Statistic
from peftx.adapters.fused import Fused
from peftx.adapters.insert import Insert
from peftx.adapters.schedule import Binding, Schedule
from peftx.adapters.unsplit import unsplit
from peftx.errors import AdapterError
from peftx_kernels import Groups, group_rows

if TYPE_CHECKING:
    from peftx.adapters.attachment import Attachment

__all__ = ["BANK", "SLOT", "Board", "Selection", "Slot", "banks_of", "is_reserved", "slots_of"]

#: name of the reserved child of an adapted module
SLOT = "peftx"
#: name of the reserved child of the root that holds what an adapter's sites share
BANK = "peftx_bank"


def is_reserved(path: str) -> bool:
    """Whether a module path or a state-dict key belongs to an adapter, not to the base."""
    parts = path.split(".")
    return SLOT in parts or BANK in parts


@dataclass(frozen=True, eq=False)
class Selection:
    """What one forward uses: adapter names in order, or a partition of the batch among adapters.

    `rows` maps each tuple of adapter names to the sample indices it serves; `size` is the batch size. `context` is
    the side information of the forward. Compared by identity: a selection is made once, when the user chooses it.
    """

    names: tuple[str, ...] = ()
    rows: tuple[tuple[tuple[str, ...], Tensor], ...] | None = None
    size: int = 0
    context: Mapping[str, Any] = field(default_factory=dict)
    #: of a partition, for operations that take the whole batch; numbered as in `rows`
    groups: Groups | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.rows is not None:
            ids = torch.empty(self.size, dtype=torch.int64)
            for group, (_, rows) in enumerate(self.rows):
                ids[rows] = group
            object.__setattr__(self, "groups", group_rows(ids, len(self.rows)))

    def part(self, names: tuple[str, ...], rows: Tensor) -> Selection:
        """The selection of some samples: theirs of every tensor of the context that has one row a sample."""
        context = {
            key: value[rows.to(value.device)]
            if isinstance(value, Tensor) and value.dim() and value.shape[0] == self.size
            else value
            for key, value in self.context.items()
        }
        return Selection(names=names, context=context)


@dataclass
class Board:
    """The state one model's slots share: what is attached, and what the current forward uses."""

    current: Selection = field(default_factory=Selection)
    attachments: dict[str, Attachment] = field(default_factory=dict)
    #: names of base parameters -> requires_grad before the first adapter came
    frozen: dict[str, bool] = field(default_factory=dict)
    #: keys of sites seen by a forward, while somebody asks
    trace: set[str] | None = None
    recompute_activations: bool = False
    #: schedules by adapter name, and the optimizer hooks that drive them
    schedules: dict[str, Schedule] = field(default_factory=dict)
    binding: Binding = field(default_factory=Binding)
    #: names of the adapters that are trained now
    trained: tuple[str, ...] = ()
    #: selections of the forwards whose backward may still come, for activation checkpointing
    _pending: list[Selection] = field(default_factory=list)
    #: selections of training forwards without gradients: the first passes of reentrant checkpointing, or a teacher
    _quiet: list[Selection] = field(default_factory=list)
    _replayed: bool = False
    #: the mode the root was last put in, and the modules kept in evaluation mode regardless
    training: bool = False
    held: set[str] = field(default_factory=set)
    #: adapters that are written into the weights now
    fused: Fused | None = None
    #: the user is inside a `per_sample`, `disabled` or `context` block
    _explicit: bool = False
    #: an adapted module is running one part of a partitioned batch
    _inside: bool = False

    def selection(self) -> Selection:
        """The selection of this forward.

        A forward that runs inside a backward pass is activation checkpointing computing a block again: it must use
        what the first pass used, even when the user has moved on since.

        Raises:
            AdapterError: such a forward, when passes with different selections are waiting for their backward; or
                one that trains an adapter whose schedule no optimizer drives.
        """
        if self.schedules and self.training and torch.is_grad_enabled():
            self._require_bound()
        if self._inside or torch.compiler.is_compiling():
            return self.current
        if torch._C._current_graph_task_id() == -1:
            grad = torch.is_grad_enabled()
            if not grad and not self.training:
                return self.current
            if self._replayed:
                self.forget_pending()
            # two that differ are as good as any number: no backward can then tell which it belongs to
            waiting = self._pending if grad else self._quiet
            if not waiting or (len(waiting) == 1 and waiting[0] is not self.current):
                waiting.append(self.current)
            return self.current
        self._replayed = True
        waiting = self._pending or self._quiet
        if not waiting:
            return self.current
        if len(waiting) == 1:  # whatever block the backward is called in
            return waiting[0]
        if self._explicit:
            return self.current
        raise AdapterError(
            "activation checkpointing computes a block again, but forwards with different adapter selections or "
            "contexts are waiting for their backward: call backward inside the same `per_sample`, `disabled` or "
            "`context` block as its forward"
        )

    def _require_bound(self) -> None:
        for name in self.current.names:
            if name in self.schedules and name in self.trained and name not in self.binding.running:
                raise AdapterError(
                    f"the adapter {name!r} ({self.attachments[name].method_name}) changes over the course of training "
                    "and is not bound to an optimizer: call adapted.bind(optimizer, total_steps=N) before the first "
                    "training step, or model.eval() if you are not training"
                )

    def select(self, names: tuple[str, ...]) -> None:
        """Use these adapters from now on; the context stays."""
        self.current = Selection(names=names, context=self.current.context)

    def unfuse(self, *, restore: bool = True) -> None:
        """Take fused adapters out of the weights; or only forget them, because the weights were loaded again.

        Raises:
            AdapterError: a weight was changed since they were written.
        """
        if self.fused is not None:
            if restore:
                self.fused.take_out()
            else:
                self.fused.forget()
            self.fused = None

    @contextmanager
    def unfused(self) -> Iterator[None]:
        """Inside the block, the weights are the base's. Fused adapters return, unless others were activated inside.

        Raises:
            AdapterError: as in `unfuse`.
        """
        fused, selection = self.fused, self.current
        self.unfuse()
        try:
            yield
        finally:
            if fused is not None and self.fused is None and self.current is selection:
                fused.put_back()
                self.fused = fused

    def forget_pending(self) -> None:
        """Drop the selections kept for checkpointing (an optimizer step ends their use)."""
        self._pending.clear()
        self._quiet.clear()
        self._replayed = False


class Slot(nn.ModuleDict):
    """An adapted module's deltas: adapter name -> site label -> `Delta`."""

    def __init__(self, board: Board, key: str, batch_dim: int = 0) -> None:
        super().__init__()
        self.board = board
        self.key = key
        self.batch_dim = batch_dim
        #: some adapter has an insert or a tap here
        self.inserted = False
        #: adapter name -> inserts elsewhere that read this module's input
        self.taps: dict[str, list[Insert]] = {}
        #: adapters that would be bypassed by a reader of this module's weights
        self.opaque: set[str] = set()
        self._running = False

    def deltas(self, names: tuple[str, ...]) -> list[Delta]:
        """This module's deltas under the adapters `names`, in order."""
        found: list[Any] = []
        for name in names:
            labels = self._modules.get(name)
            if labels is not None:
                found.extend(labels._modules.values())
        return found

    def weights(self, names: tuple[str, ...]) -> list[Delta]:
        """Those of `deltas` that change what the module computes with."""
        found = self.deltas(names)
        return [delta for delta in found if not isinstance(delta, Insert)] if self.inserted else found

    def inserts(self, names: tuple[str, ...]) -> list[Insert]:
        """The inserts around this module under the adapters `names`, in order."""
        return [delta for delta in self.deltas(names) if isinstance(delta, Insert)]

    def taps_of(self, names: tuple[str, ...]) -> list[Insert]:
        """The inserts elsewhere that read this module's input."""
        return [insert for name in names for insert in self.taps.get(name, ())]

    def listen(self, name: str, insert: Insert) -> None:
        """Let an adapter's insert elsewhere read what this module is called with."""
        self.taps.setdefault(name, []).append(insert)
        self.inserted = True

    def shield(self, name: str) -> None:
        """Under this adapter, let nobody outside this module compute with its weights: it would be bypassed."""
        self.opaque.add(name)
        self.inserted = True

    def drop(self, name: str) -> None:
        """Forget an adapter."""
        self._modules.pop(name, None)
        self.taps.pop(name, None)
        self.opaque.discard(name)
        inserts = any(isinstance(module, Insert) for module in self.modules())
        self.inserted = inserts or bool(self.taps) or bool(self.opaque)

    def statistic(self, name: str, base: Tensor, training: bool) -> Tensor:
        """The running statistic a forward uses and, in training, moves: an active adapter's own.

        Without one, a layer in training mode gets a copy to move, so that the base stays as it was.
        """
        for delta in reversed(self.deltas(self.board.selection().names)):
            if isinstance(delta, Statistic) and delta.site.weight == name:
                return delta.value
        return base.clone() if training else base

    def _changing(self, names: tuple[str, ...], parameter: str) -> list[Delta]:
        return [
            delta
            for delta in self.deltas(names)
            if delta.site.weight == parameter or (delta.changes_bias and delta.site.bias == parameter)
        ]

    def read(self, parameters: dict[str, Any], name: str) -> Tensor | None:
        """The value a parameter has under the current selection: what any reader of the module must see."""
        base = parameters[name]
        board = self.board
        selection = board.selection()
        if selection.rows is not None:
            others = {other for names, _ in selection.rows for other in names}
            if self._changing(tuple(others), name) or (not self._running and others & self.opaque):
                return unsplit(base, f"{self.key}.{name}")
            return base
        if self.opaque and not self._running and not self.opaque.isdisjoint(selection.names):
            return unsplit(base, f"{self.key}.{name}", "an adapter would be passed by")
        deltas = [delta for delta in self.weights(selection.names) if not isinstance(delta, Statistic)]
        changing = self._changing(selection.names, name)
        if not changing:
            return base
        if any(delta.routed for delta in changing):
            return unsplit(base, f"{self.key}.{name}", "its update depends on the input")
        if board.trace is not None:
            board.trace.update(delta.site.key for delta in changing)
        values: dict[str, Tensor | None] = {}
        for delta in deltas:
            site = delta.site
            weight_name = "weight" if site.weight == "bias" and "weight" in parameters else site.weight
            bias_name = "bias" if site.weight == "bias" else site.bias
            weight = values.get(weight_name, parameters[weight_name])
            bias = None if bias_name is None else values.get(bias_name, parameters[bias_name])
            kind = site.kind
            new_weight, new_bias = effective_rows(delta, to_canonical(kind, weight), bias)
            values[weight_name] = from_canonical(kind, new_weight)
            if bias_name is not None:
                values[bias_name] = new_bias
        return values.get(name, base)


def slots_of(model: nn.Module) -> Iterator[tuple[str, nn.Module, Slot]]:
    """(path, module, slot) of every adapted module below `model`."""
    for path, module in model.named_modules():
        slot = module._modules.get(SLOT)
        if isinstance(slot, Slot):
            yield path, module, slot


def banks_of(model: nn.Module) -> dict[str, nn.Module]:
    """What the sites of each adapter share, by adapter name."""
    banks: Any = model._modules.get(BANK)
    return {} if banks is None else dict(banks.items())
