"""The half of the handle that an optimizer deals with: what is trained, in which groups, what its steps drive."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from torch import Tensor, nn
from torch.optim import Optimizer

from peftx.adapters.delta import Delta, Owned, Statistic
from peftx.adapters.method import AdapterMethod
from peftx.adapters.schedule import innermost
from peftx.adapters.slot import BANK, Board, banks_of, slots_of
from peftx.adapters.store import ParamStore
from peftx.errors import AdapterError

if TYPE_CHECKING:
    from peftx.adapters.attachment import Attachment

__all__ = ["Trainee"]


class Trainee:
    """Base of `peftx.adapters.Adapted`."""

    model: nn.Module

    @property
    def _board(self) -> Board:
        raise NotImplementedError

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the adapters a forward uses, in order of application."""
        return self._board.current.names

    def named_parameters(self, name: str | None = None) -> Iterator[tuple[str, nn.Parameter]]:
        """(state-dict key, parameter) of what the adapters train now; of one adapter when named.

        Raises:
            AdapterError: the model carries no adapter (it was detached).
        """
        _ = self._board
        seen: set[int] = set()
        for path, _, slot in slots_of(self.model):
            for adapter, labels in slot.items():
                if name is not None and adapter != name:
                    continue
                for key, parameter in labels.named_parameters():
                    if parameter.requires_grad and id(parameter) not in seen:
                        seen.add(id(parameter))
                        yield f"{path + '.' if path else ''}peftx.{adapter}.{key}", parameter
        for adapter, bank in banks_of(self.model).items():
            for key, parameter in bank.named_parameters():
                if name in (None, adapter) and parameter.requires_grad:
                    yield f"{BANK}.{adapter}.{key}", parameter

    def parameters(self, name: str | None = None) -> Iterator[nn.Parameter]:
        """The parameters the adapters train now."""
        for _, parameter in self.named_parameters(name):
            yield parameter

    def param_groups(
        self, lr: float, *, head_lr: float | None = None, weight_decay: float = 0.0
    ) -> list[dict[str, Any]]:
        """Optimizer groups: adapter and owned head apart, no weight decay on vectors (biases, norms, tokens).

        Args:
            lr: learning rate of the adapter.
            head_lr: learning rate of owned heads; `lr` by default.
            weight_decay: decoupled decay of matrices.
        """
        heads = {id(p) for p in self._head_parameters()}
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in self.parameters():
            groups.setdefault((id(parameter) in heads, parameter.dim() > 1), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": head_lr if head and head_lr is not None else lr,
                "weight_decay": weight_decay if matrix else 0.0,
                "name": ("head" if head else "adapter") + (".matrices" if matrix else ".vectors"),
            }
            for (head, matrix), parameters in sorted(groups.items())
        ]

    def _head_parameters(self) -> Iterator[nn.Parameter]:
        for _, _, slot in slots_of(self.model):
            for delta in slot.deltas(tuple(slot.keys())):
                if delta.site.role == "head":
                    yield from delta.parameters()

    def bind(self, optimizer: Optimizer, total_steps: int | None = None) -> Self:
        """Tie the adapters to the optimizer that trains them; call it once, after building the optimizer.

        Checks that the optimizer holds every trained parameter; starts the schedules of the adapters that have one and
        are trained now, which then run with the optimizer's steps; and ends the use of kept selections (those that
        activation checkpointing goes by) at each step. Binding again starts the schedules anew.

        Args:
            optimizer: the optimizer of your loop; of one that a library wrapped, the optimizer inside is used.
            total_steps: number of optimizer steps the training will take; needed by methods with a schedule.

        Raises:
            AdapterError: a trained parameter is missing from the optimizer, `total_steps` is no positive whole number,
                or it is missing and a schedule needs it.
        """
        if total_steps is not None and not (isinstance(total_steps, int) and total_steps >= 1):
            raise AdapterError(
                f"total_steps is the number of optimizer steps, a whole number of at least 1, got {total_steps}"
            )
        optimizer = innermost(optimizer)
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [key for key, parameter in self.named_parameters() if id(parameter) not in held]
        if missing:
            raise AdapterError(
                f"the optimizer lacks {len(missing)} trained tensors, the first being {missing[0]}; build it from "
                "adapted.parameters() or adapted.param_groups(lr)"
            )
        board = self._board
        for name, schedule in board.schedules.items():
            holders = self._holders(name)
            if any(p.requires_grad for holder in holders.values() for p in holder.parameters()):
                store = ParamStore(optimizer, holders.values())
                deltas = {
                    key: delta
                    for key, delta in holders.items()
                    if isinstance(delta, Delta) and not isinstance(delta, (Owned, Statistic))
                }
                # a fresh one runs: the board is copied with its model, and must hold nothing of a training
                board.binding.start(name, copy.deepcopy(schedule), optimizer, deltas, store, total_steps)
        board.binding.watch(optimizer, board.forget_pending)
        return self

    def _holders(self, name: str) -> dict[str, nn.Module]:
        """What holds an adapter's tensors: its deltas by site key, and its bank as ``@bank``."""
        found: dict[str, nn.Module] = {}
        for _, _, slot in slots_of(self.model):
            if name in slot:
                found |= {delta.site.key: delta for delta in slot.deltas((name,))}
        bank = banks_of(self.model).get(name)
        return dict(sorted(found.items())) | ({} if bank is None else {"@bank": bank})

    @property
    def merges(self) -> bool:
        """Whether the active adapters can be written into the weights: none is routed or acts on activations."""
        return all(
            delta.merges
            for name in self.active
            for delta in self._holders(name).values()
            if isinstance(delta, Delta)
        )

    @property
    def shapes_loss(self) -> bool:
        """Whether the method of an adapter that is trained now has a say in the loss (`AdapterMethod.loss`)."""
        return bool(self._shaping())

    def loss(self, run: Callable[[], tuple[Tensor, Any]]) -> Tensor:
        """The loss to minimise in a training step: that of one forward, or what the methods of the trained make of it.

        Args:
            run: one forward on the batch, which returns its mean loss and what the model returned. Called once, unless
                a method looks at the batch more often.
        """
        for attachment in self._shaping():
            run = partial(_shaped, attachment.method, attachment.config, run)
        return run()[0]

    def _shaping(self) -> list[Attachment]:
        board = self._board
        found = [board.attachments[name] for name in board.trained]
        return [one for one in found if type(one.method).loss is not AdapterMethod.loss]

    @property
    def settled(self) -> bool:
        """Whether every active adapter has its final form: no schedule will change more than values from now on.

        An adapter that is not bound is not being trained, and so is settled.
        """
        running = self._board.binding.running
        return all(running[name].schedule.settled for name in self.active if name in running)

    def schedule_state(self) -> dict[str, Any]:
        """The state of the schedules that run: tensors, numbers, strings, and lists and dicts of them."""
        return self._board.binding.state_dict()

    def load_schedule_state(self, state: Mapping[str, Any]) -> Self:
        """Go on where `schedule_state` was taken; call it after `bind`, with adapter and optimizer restored as well.

        Raises:
            AdapterError: the state is of other adapters, or of a training of another length.
        """
        board = self._board
        # one that was trained before the others, and is not any more, has nothing to go on with
        done = board.schedules.keys() - set(board.trained) - board.binding.running.keys()
        board.binding.load_state_dict({name: saved for name, saved in state.items() if name not in done})
        return self


def _shaped(method: AdapterMethod, config: Any, run: Callable[[], tuple[Tensor, Any]]) -> tuple[Tensor, Any]:
    """One forward of a loss that a method shapes, as the methods behind it see one: its loss, and the last outputs."""
    outputs: list[Any] = []

    def once() -> tuple[Tensor, Any]:
        loss, seen = run()
        outputs.append(seen)
        return loss, seen

    return method.loss(config, once), outputs[-1]
