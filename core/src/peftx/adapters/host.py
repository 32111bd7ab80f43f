"""The in-place class swap: an adapted module's `__class__` becomes a cached subclass of its own class.

The subclass has the same name and adds three things.

- For every parameter it declares, a property that returns the *effective* value. Whatever reads
  ``module.weight`` (the module's own forward, a fused attention that takes the raw weights, the fast path of
  `nn.TransformerEncoderLayer`) reads what the adapter made of it. That is why perturbing an adapter changes the
  output whatever path the forward takes.
- A forward that lets a delta own the product where the layer is a textbook one, and otherwise runs the module's
  own forward over the properties.
- On the root of the adapted model, a `train` that keeps frozen parts in the mode their adapter asks for.

Base parameters stay where they were (`_parameters`), so base state-dict keys and values never change, and taking
the class back restores the module exactly.
"""

from __future__ import annotations

import inspect
import operator
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from types import FunctionType
from typing import Any

from torch import nn

from peftx.adapters.base import apply, root_base
from peftx.adapters.insert import run_inserts
from peftx.adapters.mixing import run_partitioned
from peftx.adapters.slot import SLOT, Board, Slot, is_reserved
from peftx.errors import AdapterError

__all__ = [
    "STATISTICS",
    "base_class",
    "hold_trunk",
    "is_host",
    "release_trunk",
    "root_board",
    "swap_in",
    "swap_out",
]

#: where the root of an adapted model keeps its board
BOARD = "_peftx_board"

#: buffers that a layer in training mode moves
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

_classes: dict[tuple[type, tuple[str, ...]], type] = {}


class _Host:
    """Mixin marker of swapped classes; `_peftx_base` is the class that was there before."""

    _peftx_base: type
    _peftx_names: tuple[str, ...]
    _peftx_product: Any = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        # copy.deepcopy and torch.save come here: a generated class cannot be found by its name
        module: Any = self
        state = module.__getstate__()
        return _rebuild, (type(self)._peftx_base, type(self)._peftx_names), state

    def train(self: Any, mode: bool = True) -> Any:
        super().train(mode)  # type: ignore[misc]
        board = self.__dict__.get(BOARD)
        if board is not None:
            board.training, board.held = mode, set()
            hold_trunk(self, board)
        return self

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        slot: Slot | None = self._modules.get(SLOT)
        if slot is None:
            return super().forward(*args, **kwargs)  # type: ignore[misc]
        board = slot.board
        selection = board.selection()
        if selection is not board.current or selection.rows is not None:
            return run_partitioned(self, slot, selection, args, kwargs)
        if not slot.inserted:
            return self._peftx_own(slot, selection.names, *args, **kwargs)
        own = partial(self._peftx_own, slot, selection.names)
        if not slot.opaque:
            return run_inserts(slot, selection.names, own, args, kwargs)
        # its own forward may read the weights that others must not
        running, slot._running = slot._running, True
        try:
            return run_inserts(slot, selection.names, own, args, kwargs)
        finally:
            slot._running = running

    def _peftx_own(self: Any, slot: Slot, names: tuple[str, ...], *args: Any, **kwargs: Any) -> Any:
        """The module's own product or forward, under the deltas on its weights."""
        product = self._peftx_product
        # torch's encoders may hand padded batches on as nested tensors, which only torch's own layers take
        if product is not None and len(args) == 1 and not kwargs and not args[0].is_nested:
            deltas = slot.weights(names)
            if deltas:
                board = slot.board
                if board.trace is not None:
                    board.trace.update(delta.site.key for delta in deltas)
                base = product(self)
                base.recompute = board.recompute_activations
                return apply(deltas, args[0], base)
        return super().forward(*args, **kwargs)  # type: ignore[misc]


def _reader(name: str) -> property:
    def read(self: Any) -> Any:
        parameters = self.__dict__["_parameters"]
        slot = self.__dict__["_modules"].get(SLOT)
        if name not in parameters:
            if name in self.__dict__["_buffers"]:
                buffer = self.__dict__["_buffers"][name]
                return (
                    buffer if slot is None or buffer is None else slot.statistic(name, buffer, self.training)
                )
            if name in self.__dict__:
                return self.__dict__[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        # a sharded parameter is being managed, not computed with: a forward sees it only once it is gathered
        if slot is None or hasattr(parameters[name], "placements"):
            return parameters[name]
        try:
            return slot.read(parameters, name)
        except AttributeError as error:
            # after an AttributeError torch looks the name up again, and finds the frozen value
            raise AdapterError(f"the adapter on {slot.key} failed: {error}") from error

    def write(self: Any, value: Any) -> None:
        if isinstance(value, nn.Parameter) or name in self._parameters or name in self._buffers:
            nn.Module.__setattr__(self, name, value)
        else:  # pruning and old weight norms put a plain tensor in the place of a parameter
            self.__dict__[name] = value

    def delete(self: Any) -> None:
        nn.Module.__delattr__(self, name)

    return property(read, write, delete)


def _members(container: Any) -> dict[str, nn.Module]:
    return {name: child for name, child in container._modules.items() if not is_reserved(name)}


def _iterate(self: Any) -> Any:
    return iter(_members(self).values())


def _length(self: Any) -> int:
    return len(_members(self))


def _item(self: Any, index: Any) -> Any:
    if isinstance(index, slice):
        return type(self)._peftx_base(OrderedDict(list(_members(self).items())[index]))
    return list(_members(self).values())[operator.index(index)]


#: what a container runs or counts is its members, not the adapters it carries
_CONTAINER = {"__iter__": _iterate, "__len__": _length, "__getitem__": _item}


def _forward_of(cls: Any) -> Any:
    """The host's forward with the signature of the module's own: trainers read it to choose what they pass."""
    shared: Any = _Host.forward
    forward: Any = FunctionType(
        shared.__code__, shared.__globals__, "forward", shared.__defaults__, shared.__closure__
    )
    forward.__doc__ = cls.forward.__doc__
    with suppress(TypeError, ValueError):  # not every callable has one
        forward.__signature__ = inspect.signature(cls.forward)
    return forward


def _host_class(cls: type, names: tuple[str, ...]) -> type:
    key = (cls, names)
    if key not in _classes:
        body: dict[str, Any] = {name: _reader(name) for name in names}
        body["_peftx_base"], body["_peftx_names"], body["forward"] = cls, names, _forward_of(cls)
        if issubclass(cls, nn.Sequential):
            body |= _CONTAINER
        # a weight that is computed (a parametrised layer) is no parameter: the layer's own forward reads it
        body["_peftx_product"] = root_base(cls) if "weight" in names else None
        # the name stays: sharding policies, repr and saved configurations go by it
        body["__module__"], body["__qualname__"], body["__doc__"] = (
            cls.__module__,
            cls.__qualname__,
            cls.__doc__,
        )
        _classes[key] = type(cls.__name__, (_Host, cls), body)
    return _classes[key]


def _rebuild(cls: type, names: tuple[str, ...]) -> Any:
    host: Any = _host_class(cls, names)
    return host.__new__(host)


def is_host(module: nn.Module) -> bool:
    """Whether a module's class is a swapped one."""
    return isinstance(module, _Host)


def base_class(module: nn.Module) -> type:
    """The class a module has, or had before it was adapted."""
    cls: Any = type(module)
    return cls._peftx_base if isinstance(module, _Host) else cls


def swap_in(module: nn.Module) -> None:
    """Swap a module's class for its adapted subclass.

    Raises:
        AdapterError: the module's class cannot be subclassed in place.
    """
    if isinstance(module, _Host):
        return
    statistics = (name for name in STATISTICS if name in module._buffers)
    host = _host_class(type(module), (*module._parameters, *statistics))
    try:
        module.__class__ = host
    except TypeError as error:
        raise AdapterError(f"{type(module).__name__} cannot be adapted in place: {error}") from error


def swap_out(module: nn.Module) -> None:
    """Give a module its own class back and take its slot away.

    Raises:
        AdapterError: something else (sharding, say) has changed the class since.
    """
    cls = type(module)
    if "_peftx_base" not in cls.__dict__:
        raise AdapterError(
            f"the class of a {cls.__name__} was changed after its adapter was attached, so it cannot be put back; "
            "detach before wrapping or sharding the model"
        )
    module._modules.pop(SLOT, None)
    module.__class__ = base_class(module)


def root_board(model: nn.Module) -> Board | None:
    """The board a root module keeps, or None when the model is not adapted."""
    board = model.__dict__.get(BOARD)
    return board if isinstance(board, Board) else None


def hold_trunk(model: nn.Module, board: Board) -> None:
    """Put frozen parts back into evaluation mode after `model.train()`, as the attached adapters ask.

    ``frozen_stats`` covers layers with running statistics: `requires_grad=False` does not stop batch normalisation
    from using and updating them. ``eval`` covers every module but the adapters' own. A module one of whose
    parameters an adapter owns and trains counts as frozen for dropout, too.
    """
    if not board.training:
        return
    active = board.current.names or tuple(board.attachments)
    policies = {board.attachments[name].config.trunk for name in active}
    if not policies or "train" in policies:
        return
    everything = "eval" in policies
    for path, module in model.named_modules():
        if is_reserved(path) or not module.training:
            continue
        if everything or getattr(module, "running_mean", None) is not None:
            module.training = False
            board.held.add(path)


def release_trunk(model: nn.Module, board: Board) -> None:
    """Give the modules that `hold_trunk` put into evaluation mode their training mode back."""
    for path, module in model.named_modules():
        if path in board.held:
            module.training = True
    board.held = set()
