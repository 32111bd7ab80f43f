"""Which implementation each op uses, and why.

An op (``lora_linear``) has several implementations with one signature: ``reference`` (plain torch, the definition of
correctness), ``eager`` (the fastest composition of library calls), ``triton`` (fused kernels), and whatever a plugin
registers. This table maps names to them and never imports torch: implementations are ``"module:object"`` strings until
first use, so a plugin manager can fill the table at start-up for free.

``auto`` decides call by call where an op has kernels that can run in this process: beside the op its module has a
function ``fits``, of the same arguments, which says whether the kernels are for this call (CUDA tensors, types, a size
at which they win). All other calls take the library calls.

The environment variable ``PEFTX_KERNELS`` chooses. It holds ``auto`` (the default), ``reference``, ``triton`` or any
registered name, and ``op=name`` items after commas for single ops: ``PEFTX_KERNELS=auto,dora_linear=reference``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from peftx_kernels.availability import interpreting, why_no_triton

__all__ = ["KernelError", "Tier", "implementation", "prepare", "register", "tiers", "use"]

_OPS = "peftx_kernels.ops"
_AUTO = ("eager", "reference")  # the order in which `auto` looks
_EVERYWHERE = ("reference", "eager", "triton")  # names that are valid for all ops, implemented or not


class KernelError(RuntimeError):
    """An op was asked for an implementation that does not exist; the message says which ones do."""


@dataclass(frozen=True, slots=True)
class Tier:
    """What an op runs: ``name`` is the chosen implementation, ``available`` all of them, ``reason`` who chose.

    ``by_call``: kernels run where they fit, and ``name`` everywhere else.
    """

    op: str
    name: str
    available: tuple[str, ...]
    reason: str
    by_call: bool = False


_table: dict[str, dict[str, str | Callable[..., Any]]] = {
    op: {
        name: f"{_OPS}.{folder}.{module}:{op}"
        for name, module in (("reference", "reference"), ("eager", "op"))
    }
    for op, folder in (
        ("lora_linear", "lora_linear"),
        ("lora_linear_slices", "lora_linear"),
        ("dora_linear", "dora_linear"),
        ("dora_norm", "dora_linear"),
        ("snell_linear", "snell_linear"),
        ("snell_update", "snell_linear"),
        ("grouped_lora", "grouped_lora"),
        ("sparse_switch", "sparse_switch"),
        ("bottleneck", "bottleneck"),
    )
}
#: ops with kernels: the module that holds the op, and `fits`
_TRITON: dict[str, str] = {
    "lora_linear": f"{_OPS}.lora_linear.triton",
    "lora_linear_slices": f"{_OPS}.lora_linear.triton",
    "dora_linear": f"{_OPS}.dora_linear.triton",
    "dora_norm": f"{_OPS}.dora_linear.triton",
    "snell_linear": f"{_OPS}.snell_linear.triton",
    "snell_update": f"{_OPS}.snell_linear.triton",
    "grouped_lora": f"{_OPS}.grouped_lora.triton",
    "sparse_switch": f"{_OPS}.sparse_switch.triton",
    "bottleneck": f"{_OPS}.bottleneck.triton",
}
for _op, _module in _TRITON.items():
    _table[_op]["triton"] = f"{_module}:{_op}"
_chosen: dict[str, Callable[..., Any]] = {}
_prepared: set[str] = set()
_setting = os.environ.get("PEFTX_KERNELS", "auto")


def register(op: str, name: str, fn: str | Callable[..., Any]) -> None:
    """Add implementation ``name`` of ``op``: a callable with the op's signature, or ``"module:object"`` to import late.

    It runs only where asked for by name (``PEFTX_KERNELS=name`` or ``op=name``); ``auto`` keeps the built-in choice.

    Raises:
        KernelError: unknown op, or a name that is taken.
    """
    known = _table.get(op)
    if known is None:
        raise KernelError(f"no kernel op is called {op!r}; the ops are {', '.join(sorted(_table))}")
    if known.get(name, fn) != fn:
        raise KernelError(
            f"op {op} already has an implementation called {name!r}; register it under another name"
        )
    known[name] = fn
    _chosen.pop(op, None)
    if op in _prepared:
        prepare(op)


def use(setting: str | None = None) -> None:
    """Replace the choice of ``PEFTX_KERNELS`` for this process; None reads the environment variable again."""
    global _setting
    _setting = os.environ.get("PEFTX_KERNELS", "auto") if setting is None else setting
    _chosen.clear()
    prepare(*_prepared)


def implementation(op: str) -> Callable[..., Any]:
    """Return the callable that ``op`` runs now.

    Raises:
        KernelError: the chosen implementation does not exist for this op.
    """
    fn = _chosen.get(op)
    if fn is None:
        tier = _choose(op)
        fn = _chosen[op] = _by_call(op, tier.name) if tier.by_call else _load(op, tier.name)
    return fn


def prepare(*ops: str) -> None:
    """Load the chosen implementations now, so that a compiler tracing a call finds them; a wrong choice waits."""
    _prepared.update(ops)
    for op in ops:
        with contextlib.suppress(KernelError):
            implementation(op)


def tiers() -> dict[str, Tier]:
    """Return the choice for every op, by op name.

    Raises:
        KernelError: ``PEFTX_KERNELS`` asks an op for an implementation it does not have.
    """
    return {op: _choose(op) for op in sorted(_table)}


def _choose(op: str) -> Tier:
    available = _table[op]
    asked, reason = _asked(op)
    if asked == "auto":
        name = next(name for name in _AUTO if name in available)
        if op not in _TRITON:
            return Tier(op, name, tuple(available), "the fastest composition of library calls")
        obstacle = why_no_triton() or ("Triton's interpreter is on" if interpreting() else "")
        if obstacle:
            reason = f"the fastest composition of library calls, because {obstacle}"
            return Tier(op, name, tuple(available), reason)
        reason = "Triton kernels on CUDA tensors where they fit, library calls elsewhere"
        return Tier(op, name, tuple(available), reason, by_call=True)
    if asked == "triton" and asked in available and why_no_triton():
        raise KernelError(
            f"PEFTX_KERNELS asks for the Triton kernels of {op}, but {why_no_triton()}; set PEFTX_KERNELS=auto, or to "
            "test them without a GPU set TRITON_INTERPRET=1 before Python starts"
        )
    if asked not in available:
        raise KernelError(
            f"PEFTX_KERNELS asks for the {asked!r} implementation of {op}, which has only {', '.join(available)}; "
            f"set PEFTX_KERNELS=auto or {op}=eager"
        )
    return Tier(op, asked, tuple(available), reason)


def _asked(op: str) -> tuple[str, str]:
    """Read the setting for one op: an ``op=name`` item wins over the general name."""
    general, single = "auto", ""
    for item in filter(None, (part.strip() for part in _setting.split(","))):
        left, equals, right = item.partition("=")
        if not equals:
            general = left
        elif left not in _table:
            raise KernelError(f"PEFTX_KERNELS names op {left!r}; the ops are {', '.join(sorted(_table))}")
        elif left == op:
            single = right
    known = {"auto", *_EVERYWHERE, *(name for names in _table.values() for name in names)}
    name = single or general
    if name not in known:
        raise KernelError(
            f"PEFTX_KERNELS={_setting} names {name!r}; expected one of {', '.join(sorted(known))}"
        )
    if not single and name not in _table[op] and name not in ("auto", "triton"):
        return "auto", ""  # a plugin's name given for all ops: those without it keep the built-in choice
    return name, f"PEFTX_KERNELS={_setting}"


def _by_call(op: str, otherwise: str) -> Callable[..., Any]:
    """The op as `auto` runs it where kernels can run: they, where they fit, and `otherwise` elsewhere."""
    kernels, plain = _load(op, "triton"), _load(op, otherwise)
    fits: Callable[..., bool] = importlib.import_module(_TRITON[op]).fits

    def dispatch(*arguments: Any, **options: Any) -> Any:
        return (kernels if fits(op, *arguments, **options) else plain)(*arguments, **options)

    return dispatch


def _load(op: str, name: str) -> Callable[..., Any]:
    target = _table[op][name]
    if callable(target):
        return target
    module, _, attribute = target.partition(":")
    loaded: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return loaded
