"""`Adapted`: the handle on a model that carries adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from peftx.adapters.attachment import Attachment, attach_to, detach_from, remove_from, select_for
from peftx.adapters.explanation import Counts, Explanation, count, explain_attachment
from peftx.adapters.host import root_board
from peftx.adapters.packing import Packer, packer_of
from peftx.adapters.slot import Board, Selection
from peftx.adapters.trained import set_trainable
from peftx.adapters.trainee import Trainee
from peftx.errors import AdapterError, UnknownNameError, near_matches

__all__ = ["Adapted", "adapted", "attach"]


class Adapted(Trainee):
    """A model and its adapters.

    The handle holds no state of its own: `peftx.adapted(model)` gives an equal one, also for a deep copy.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __repr__(self) -> str:
        parts = [f"{a.name}: {a.method_name}, {len(a.plan)} sites" for a in self._board.attachments.values()]
        return f"<Adapted {type(self.model).__name__} ({'; '.join(parts)})>"

    @property
    def _board(self) -> Board:
        board = root_board(self.model)
        if board is None:
            raise AdapterError(f"this {type(self.model).__name__} carries no adapter; attach one first")
        return board

    def _attachment(self, name: str) -> Attachment:
        try:
            return self._board.attachments[name]
        except KeyError:
            known = self.names
            raise UnknownNameError(
                f"no adapter named {name!r} is attached; there {'is' if len(known) == 1 else 'are'} "
                f"{', '.join(known)}.{near_matches(name, known)}"
            ) from None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the attached adapters, in order of attachment."""
        return tuple(self._board.attachments)

    def attachment(self, name: str | None = None) -> Attachment:
        """What an adapter is and where it went; by default the only active one.

        Raises:
            UnknownNameError: no adapter of that name.
            AdapterError: no name given while none or several are active.
        """
        return self._attachment(self._one(name))

    def _one(self, name: str | None) -> str:
        if name is not None:
            return name
        candidates = self.active or self.names
        if len(candidates) != 1:
            raise AdapterError(f"several adapters are meant ({', '.join(candidates)}); name one")
        return candidates[0]

    def attach(
        self,
        method: Any,
        *,
        name: str,
        config: Any = None,
        recompute_activations: bool = False,
        **options: Any,
    ) -> Adapted:
        """Attach a further adapter and activate it alone; see `peftx.attach`."""
        attach_to(self.model, method, name, config, recompute_activations, options)
        return self

    def activate(self, *names: str) -> Adapted:
        """Use these adapters from now on, in this order, and train exactly their parameters; none: the base.

        Several adapters compose: each sees the effective weights of those before it, so additive ones add up. Those
        that `artifacts.fuse` wrote into the weights are taken out.

        Raises:
            UnknownNameError: an adapter is not attached.
            AdapterError: an adapter is named twice; or a weight was changed while adapters were fused into it.
        """
        for name in names:
            self._attachment(name)
        if len(set(names)) < len(names):
            raise AdapterError(f"an adapter cannot be used twice in one forward; got {', '.join(names)}")
        self._board.unfuse()
        select_for(self.model, self._board, tuple(names))
        return self

    @property
    def fused(self) -> tuple[str, ...]:
        """Names of the adapters that `artifacts.fuse` wrote into the weights; they are not active."""
        fused = self._board.fused
        return () if fused is None else fused.names

    def unfuse(self, *, restore: bool = True) -> Adapted:
        """Take fused adapters out of the weights, which are then bit for bit what they were; none is active.

        Args:
            restore: False puts nothing back: the base weights were loaded again while adapters were fused.

        Raises:
            AdapterError: a weight was changed since the adapters were written.
        """
        self._board.unfuse(restore=restore)
        return self

    def train_only(self, *names: str) -> Adapted:
        """Let exactly these adapters' parameters be trained, whatever is active (for mixed batches, say)."""
        for name in names:
            self._attachment(name)
        set_trainable(self.model, tuple(names), together=False)
        return self

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside the block, forwards use the base alone."""
        board = self._board
        with board.unfused(), self._selected(Selection(context=board.current.context)):
            yield

    @contextmanager
    def context(self, **values: Any) -> Iterator[None]:
        """Inside the block, every forward has this side information: a user, a noise condition, an instruction.

        Deltas read it by name. A tensor with one row per sample is split with the batch where samples go through
        different adapters. Blocks may be nested; inner values win. Activation checkpointing computes a block again
        under the context of its first pass, so backward may be called inside the block or after it; with forwards under
        several contexts in one step, call each one's backward inside its own block.
        """
        board = self._board
        before = board.current.context
        selection = replace(board.current, context={**before, **values})
        try:
            with self._selected(selection):
                yield
        finally:
            if board.current.context is selection.context:  # adapters were activated inside the block
                board.current = replace(board.current, context=before)

    @contextmanager
    def per_sample(self, ids: Sequence[str | None]) -> Iterator[None]:
        """Inside the block, sample i of every batch goes through adapter ``ids[i]`` (None: the base).

        Inputs are (B, ...) with B = len(ids), or carry a whole number of rows per sample (windows, frames) in
        contiguous blocks. Training works: each adapter's gradient is that of its own samples. Gradient
        checkpointing works when backward runs inside the block, or before the next selection's forward.

        Raises:
            UnknownNameError: an adapter is not attached.
            AdapterError: inside the block, a module's batch is not a multiple of len(ids); or a module with an insert
                is given a cache of keys and values, which cannot be split.
        """
        if not len(ids):
            raise AdapterError(
                "per_sample needs one adapter name, or None, per sample of the batch; got an empty list"
            )
        rows: dict[tuple[str, ...], list[int]] = {}
        for index, name in enumerate(ids):
            if name is not None:
                self._attachment(name)
            rows.setdefault(() if name is None else (name,), []).append(index)
        parts = tuple((names, torch.tensor(indices)) for names, indices in rows.items())
        board = self._board
        selection = Selection(names=self.active, rows=parts, size=len(ids), context=board.current.context)
        with board.unfused(), self._selected(selection):
            yield

    @contextmanager
    def _selected(self, selection: Selection) -> Iterator[None]:
        board = self._board
        before, explicit = board.current, board._explicit
        board.current, board._explicit = selection, True
        try:
            yield
        finally:
            board._explicit = explicit
            if board.current is selection:  # otherwise the user activated adapters inside the block
                board.current = before

    def reached(self, forward: Callable[[], Any]) -> tuple[str, ...]:
        """Keys of active sites that a call of `forward` never visits; empty when the adapter takes effect everywhere.

        Runs `forward` once without gradients. Pass a closure over your model and a batch.
        """
        board = self._board
        board.trace = set()
        try:
            with torch.no_grad():
                forward()
            seen = board.trace
        finally:
            board.trace = None
        return tuple(
            site.key
            for name in self.active
            for site in self._attachment(name).sites
            if site.key not in seen and site.kind != "statistic"
        )

    def counts(self, name: str | None = None) -> Counts:
        """Trained and stored values of an adapter, adapter and owned parts apart."""
        return count(self.model, self._attachment(self._one(name)))

    def explain(self, name: str | None = None) -> Explanation:
        """What an adapter adds and where, with counts by closed formula and a memory estimate."""
        return explain_attachment(self.model, self._attachment(self._one(name)))

    def tensors(self, name: str | None = None) -> dict[tuple[str, str], Tensor]:
        """An adapter's tensors by (site key, slot), as they are trained: its whole state. Not copies.

        What its sites share stands once, under the site key ``@bank``. An artifact stores the same, but for what
        `packers` pack.
        """
        name = self._one(name)
        self._attachment(name)
        found: dict[tuple[str, str], Tensor] = {
            (site, key): value
            for site, holder in self._holders(name).items()
            for key, value in holder.state_dict(keep_vars=True).items()
        }
        return dict(sorted(found.items()))

    def packers(self, name: str | None = None) -> dict[str, Packer]:
        """What of an adapter is stored in another form than it is trained in, by site key (``@bank``: the bank)."""
        name = self._one(name)
        self._attachment(name)
        found = {site: packer_of(holder) for site, holder in self._holders(name).items()}
        return {site: packer for site, packer in found.items() if packer is not None}

    def fit(self, name: str, site: str, slot: str, shape: tuple[int, ...]) -> bool:
        """Give an elastic parameter of an adapter the shape that was saved; False when it is not elastic.

        Its values are undefined until they are filled, and an optimizer does not learn of it: for loading.
        """
        holder = self._holders(name)[site]
        path, _, leaf = slot.rpartition(".")
        owner = holder.get_submodule(path)
        old = owner._parameters.get(leaf)
        if slot not in getattr(holder, "elastic", ()) or old is None or old.dim() != len(shape):
            return False
        owner._parameters[leaf] = nn.Parameter(old.new_empty(shape), requires_grad=old.requires_grad)
        return True

    def remove(self, name: str) -> Adapted | None:
        """Take one adapter away. Removing the last one detaches, and returns None."""
        self._attachment(name)
        if len(self.names) == 1:
            self.detach()
            return None
        remove_from(self.model, self._board, name)
        set_trainable(self.model, self.active)
        return self

    def detach(self) -> nn.Module:
        """Take every adapter away; the model is then bit for bit what it was before the first `attach`."""
        detach_from(self.model, self._board)
        return self.model


def adapted(model: nn.Module) -> Adapted:
    """The handle of a model that carries adapters.

    Raises:
        AdapterError: the model carries none.
    """
    handle = Adapted(model)
    _ = handle._board
    return handle


def attach(
    model: nn.Module,
    method: Any,
    *,
    name: str = "default",
    config: Any = None,
    recompute_activations: bool = False,
    **options: Any,
) -> Adapted:
    """Attach an adapter to a model, in place, and activate it.

    The model's parameters are frozen and its modules' classes swapped; names, values and outputs stay what they
    were until the adapter is trained. `Adapted.detach` undoes it bit for bit.

    Args:
        model: any `nn.Module`.
        method: a method's name (``"core.lora"``, or bare when unique), or an `AdapterMethod` class or instance.
        name: the adapter's name on this model.
        config: the method's config object, or a dict; or give its fields as `options`.
        recompute_activations: keep a layer's pre-activation (which the activation keeps anyway) instead of its
            input, and compute the input again in the backward; less memory, a little more work.

    Raises:
        UnknownNameError, PluginError: no such method, or its pack is missing or broken.
        ConfigError: an option is wrong, or the name is taken.
        SelectionError: nothing in the model matches the targets.
        AdapterError: a part of the model cannot be adapted.
    """
    attach_to(model, method, name, config, recompute_activations, options)
    return Adapted(model)
