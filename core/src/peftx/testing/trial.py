"""`Trial`: one method on one case, with the few operations that every law is made of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import peftx
from peftx.adapters.attachment import resolve_method
from peftx.adapters.delta import Delta
from peftx.adapters.handle import Adapted
from peftx.adapters.host import root_board
from peftx.adapters.method import AdapterMethod
from peftx.adapters.site import Site
from peftx.adapters.slot import slots_of
from peftx.errors import ConfigError, PeftxError, SelectionError, UserError
from peftx.testing.cases import Case
from peftx.testing.lawbook import LawError, NotApplicable

__all__ = ["Subject", "Trial", "far", "near", "perturb", "refused", "scale_of", "sites_of"]

SAMPLES = 4
STEPS = 8


class Subject:
    """A method under test: its name or class, and options that override its defaults."""

    def __init__(self, method: Any, options: Mapping[str, Any] | None = None) -> None:
        self.given = method
        self.options = dict(options or {})
        self.name, self.method, _ = resolve_method(method, None, self.options)

    @property
    def registered(self) -> bool:
        """Whether it was given by name, so that a file that holds the name can be read again."""
        return isinstance(self.given, str)

    @property
    def Config(self) -> Any:
        """The method's configuration class."""
        return self.method.Config

    def __repr__(self) -> str:
        return f"<Subject {self.name}>"


class Trial:
    """A method on a case. Everything is made anew for every law, from the same seeds."""

    def __init__(self, subject: Subject, case: Case) -> None:
        self.subject, self.case = subject, case

    def __repr__(self) -> str:
        return f"{self.subject.name} on {self.case.name}"

    @property
    def method(self) -> AdapterMethod:
        """The method."""
        return self.subject.method

    @cached_property
    def _chosen(self) -> tuple[dict[str, Any], Any]:
        """The options of the first choice of targets that the method can work with, and their explanation."""
        missing = self.case.missing()
        if missing:
            raise NotApplicable(missing)
        kinds = self.method.kinds
        if kinds and "targets" not in self.subject.options and not set(kinds) & set(self.case.kinds):
            raise NotApplicable(f"the model has no site of kind {' or '.join(kinds)}")
        model = self.case.build()
        refusal: UserError | None = None
        for options in self.case.candidates(self.method, self.subject.options):
            try:
                explained = peftx.explain(model, self.subject.given, **options)
            except (SelectionError, ConfigError) as error:
                refusal = refusal or error
                continue
            if self.method.kinds and not any(not row.owned for row in explained.rows):
                continue
            return options, explained
        raise NotApplicable(f"refused: {refusal}" if refusal else "the model has no site of a kind it adapts")

    @property
    def options(self) -> dict[str, Any]:
        """Options under which the method has something to adapt on this case.

        Raises:
            NotApplicable: it has nothing to adapt here, or a library is missing.
        """
        return dict(self._chosen[0])

    @property
    def config(self) -> Any:
        """The validated configuration of `options`."""
        return self.method.Config(**self.options)

    @property
    def scheduled(self) -> bool:
        """Whether the method changes over the course of training."""
        return self.method.schedule(self.config) is not None

    def build(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The case's model, unadapted."""
        _ = self._chosen
        return self.case.build().to(dtype)

    def inputs(self, n: int = SAMPLES, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Inputs for n samples."""
        return tuple(x.to(dtype) if x.is_floating_point() else x for x in self.case.samples(n))

    def attach(self, model: nn.Module, name: str = "default", seed: int = 23) -> Adapted:
        """Attach the method, from a seed."""
        torch.manual_seed(seed)
        return peftx.attach(model, self.subject.given, name=name, **self.options)

    def other(self, model: nn.Module, name: str = "other") -> Adapted:
        """Attach core.lora beside it, on whatever there is, moved away from its start."""
        torch.manual_seed(29)
        lora = resolve_method("core.lora", None, {})[1]
        refusal: SelectionError | None = None
        # without a head of its own: what it owned would hide the method's
        for options in self.case.candidates(lora, {"also_train": []}):
            try:
                adapted = peftx.attach(model, "core.lora", name=name, **options)
            except SelectionError as error:
                refusal = error
                continue
            perturb(adapted.parameters(name), seed=31)
            return adapted
        raise NotApplicable(f"core.lora has nothing to adapt: {refusal}")

    def setting(
        self, model: nn.Module, n: int = SAMPLES, rows: slice = slice(None)
    ) -> AbstractContextManager[Any]:
        """The side information the method asks for, around a forward of n samples, or of some rows of them."""
        if root_board(model) is None:
            return nullcontext()
        torch.manual_seed(13)
        example = {
            name: value[rows] if isinstance(value, Tensor) and value.dim() and len(value) == n else value
            for name, value in self.method.context_example(self.config, n).items()
        }
        return peftx.adapted(model).context(**example) if example else nullcontext()

    def run(self, model: nn.Module, inputs: tuple[Tensor, ...] | None = None) -> Tensor:
        """The model's output; the same draws of dropout every time."""
        inputs = self.inputs() if inputs is None else inputs
        with self.setting(model, len(inputs[0])):
            torch.manual_seed(5)
            return self.case.call(model, *inputs)

    def bind(self, adapted: Adapted) -> torch.optim.Optimizer:
        """An optimizer over what is trained, bound for `STEPS` steps; it has moments, and its steps are bounded."""
        optimizer = torch.optim.Adam(adapted.parameters(), lr=0.01)
        adapted.bind(optimizer, total_steps=STEPS)
        return optimizer

    def backward(self, model: nn.Module, inputs: tuple[Tensor, ...] | None = None) -> Tensor:
        """One backward of a loss that weighs every output differently; returns the output."""
        y = self.run(model, inputs)
        torch.manual_seed(17)
        (y * torch.randn(y.shape).to(y)).sum().backward()
        return y

    def step(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """One training step; gradients are left for inspection."""
        optimizer.zero_grad()
        self.backward(model)
        optimizer.step()

    def inert(self, site: str) -> bool:
        """Whether a site's value cannot matter in this model."""
        return re.fullmatch(self.case.inert, site) is not None

    def deltas(self, model: nn.Module, name: str = "default") -> Iterator[tuple[nn.Module, Delta]]:
        """(module, delta) of every site of an adapter."""
        for _, module, slot in slots_of(model):
            for delta in slot.deltas((name,)):
                yield module, delta

    def merges(self, model: nn.Module, name: str = "default") -> None:
        """Nothing, where the adapter can be written into the weights.

        Raises:
            NotApplicable: one of its deltas says that it cannot.
        """
        for _, delta in self.deltas(model, name):
            if not delta.merges:
                raise NotApplicable(f"{type(delta).__name__} does not merge")


def sites_of(adapted: Adapted) -> list[Site]:
    """Sites and owned parameters of the active adapter, without running statistics."""
    return [site for site in adapted.attachment().sites if site.kind != "statistic"]


def perturb(tensors: Iterable[Tensor], scale: float = 0.3, seed: int = 3) -> None:
    """Add noise to parameters, from a seed, so that an adapter does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in tensors:
            if isinstance(tensor, nn.Parameter):
                tensor.add_(scale * torch.randn(tensor.shape, generator=generator).to(tensor))


def scale_of(y: Tensor) -> float:
    """The largest magnitude of an output, at least 1."""
    return max(1.0, float(y.detach().abs().max()))


def far(y: Tensor, z: Tensor) -> float:
    """The largest difference of two outputs."""
    return float((y.detach().float() - z.detach().float()).abs().max())


def near(y: Tensor, z: Tensor, tolerance: float, what: str) -> None:
    """Raise `LawError` unless two outputs agree within `tolerance` times their scale (at least 1)."""
    if y.shape != z.shape:
        raise LawError(f"{what}: shapes {tuple(y.shape)} and {tuple(z.shape)}")
    if not torch.isfinite(y).all():
        raise LawError(f"{what}: the output holds values that are not finite")
    difference, allowed = far(y, z), tolerance * scale_of(z)
    if not difference <= allowed:
        raise LawError(f"{what}: they differ by {difference:.2g}, allowed is {allowed:.2g}")


def refused(error: type[PeftxError], what: str, call: Any) -> str:
    """The message with which `call` is refused.

    Raises:
        LawError: it is not refused, or by something else.
    """
    try:
        call()
    except error as found:
        return str(found)
    except Exception as found:
        raise LawError(
            f"{what} raised {type(found).__name__} ({found}), expected {error.__name__}"
        ) from found
    raise LawError(f"{what} was accepted, expected {error.__name__}")
