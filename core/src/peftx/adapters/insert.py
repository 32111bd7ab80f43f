"""`Insert`: a trained module in activation space, around a module of the model.

Where a delta changes what a layer multiplies with, an insert changes what flows: a bottleneck after a block, a parallel
branch beside a feed-forward network, tokens put in front of a sequence. It reads at one point and writes at one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from torch import Tensor

from peftx.adapters.delta import Delta
from peftx.errors import AdapterError

if TYPE_CHECKING:
    from peftx.adapters.base import Base
    from peftx.adapters.slot import Slot

__all__ = ["Insert", "main_input", "main_output", "run_inserts", "with_input", "with_output"]


class Insert(Delta):
    """A module at a site of kind ``activation``: a whole attention, feed-forward network or block.

    Contract of the simple form: `insert(x)` maps what is read to what is added at the write point. With f the module
    and g the insert,

    ====== ====== =====================================
    read   write  output
    ====== ====== =====================================
    input  output ``f(x) + g(x)``   (parallel)
    output output ``y + g(y)``, y = f(x)   (sequential)
    input  input  ``f(x + g(x))``
    tap    output ``f(x) + g(t)``, t the input of `Site.read`, a module that runs before f or within
    ====== ====== =====================================

    `add` is the sum, for a class that has one operation for it and the insert. Whatever does not fit overrides
    `around`, which is given the module's call and may change everything: prepend tokens and cut them off again, skip
    the call, run it twice. `insert` and `add` see activations (B, T, D) or (..., D), also where the module keeps its
    channels elsewhere (`Site.channel_dim`); what a tap reads has its features last.

    The insert cannot be written into the weights (`merges` is False), and `effective` does not exist.
    """

    #: of the class, or set by the constructor where a configuration chooses
    read: Literal["input", "output", "tap"] = "output"
    write: Literal["input", "output"] = "output"

    #: what the tap at `Site.read` saw last
    _tapped: Tensor | None = None

    @property
    def merges(self) -> bool:
        return False

    def insert(self, x: Tensor) -> Tensor:
        """What is added at the write point."""
        raise NotImplementedError(f"{type(self).__name__} must implement insert(x) or around(call, ...)")

    def add(self, y: Tensor, x: Tensor) -> Tensor:
        """``y + insert(x)``: the stream at the write point and what is read, features last; x is y itself in sequence.

        The default rounds what is added to the dtype of y. An override gives the same, in that dtype.
        """
        return y + self.insert(x).to(y.dtype)

    def around(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run the module: `call` is its own forward, with the inserts of earlier adapters already around it."""
        if self.read == "input":
            x = self._last(main_input(args, kwargs))
            if self.write == "input":
                args, kwargs = with_input(args, kwargs, self._back(self.add(x, x)))
                return call(*args, **kwargs)
            added = self._back(self.insert(x))  # before the call, which may write to its input
            result = call(*args, **kwargs)
            y = main_output(result)
            return with_output(result, y + added.to(y.dtype))
        result = call(*args, **kwargs)
        y = self._last(main_output(result))
        return with_output(result, self._back(self.add(y, self._taken() if self.read == "tap" else y)))

    def _last(self, x: Tensor) -> Tensor:
        at = self.site.channel_dim
        return x if at == -1 else x.movedim(at, -1)

    def _back(self, x: Tensor) -> Tensor:
        at = self.site.channel_dim
        return x if at == -1 else x.movedim(-1, at)

    def _taken(self) -> Tensor:
        tapped, self._tapped = self._tapped, None
        if tapped is None:
            raise AdapterError(
                f"{self.site.key} was run, but {self.site.read}, where its adapter reads, was not run before it; "
                "run the whole model, and with activation checkpointing both in one checkpointed part"
            )
        return tapped

    def tap(self, x: Tensor) -> None:
        """Called before `Site.read` runs, with its input."""
        self._tapped = x

    def __getstate__(self) -> dict[str, Any]:
        # an activation belongs to one forward: neither copied nor saved
        return self.__dict__ | {"_tapped": None}

    def forward(self, x: Tensor, base: Base | None = None) -> Tensor:
        """The same as `insert`."""
        return self.insert(x)

    def effective(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        raise AdapterError(
            f"the adapter at {self.site.key} acts on activations, so there is no weight it makes; it cannot be merged"
        )


def run_inserts(
    slot: Slot,
    names: tuple[str, ...],
    own: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Run a module with the inserts and taps of the adapters `names` around `own`, the first adapter innermost."""
    for insert in slot.taps_of(names):
        insert.tap(main_input(args, kwargs))
    call = own
    trace = slot.board.trace
    for insert in slot.inserts(names):
        if trace is not None:
            trace.add(insert.site.key)
        call = partial(insert.around, call)
    return call(*args, **kwargs)


def main_input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The first tensor a module was called with."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value
    raise AdapterError("a module with an insert was called without a tensor to read")


def with_input(
    args: tuple[Any, ...], kwargs: dict[str, Any], x: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with another first tensor."""
    for index, value in enumerate(args):
        if isinstance(value, Tensor):
            return (*args[:index], x, *args[index + 1 :]), kwargs
    for name, value in kwargs.items():
        if isinstance(value, Tensor):
            return args, kwargs | {name: x}
    raise AdapterError("a module with an insert was called without a tensor to write to")


def main_output(result: Any) -> Tensor:
    """The tensor a module's result is about: itself, or the first of a tuple or of a model output."""
    first = result if isinstance(result, Tensor) else result[0]
    if not isinstance(first, Tensor):
        raise AdapterError(f"a module with an insert returned a {type(first).__name__}, not a tensor")
    return first


def with_output(result: Any, y: Tensor) -> Any:
    """The result with another main tensor."""
    if isinstance(result, Tensor):
        return y
    if isinstance(result, tuple):
        rest = (y, *result[1:])
        return type(result)(*rest) if hasattr(result, "_fields") else rest
    if isinstance(result, list):
        return [y, *result[1:]]
    # a transformers output: fields by name, the first one first
    return type(result)(**{**result, next(iter(result)): y})
