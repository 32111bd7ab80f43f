"""`Case`: a small model with inputs, and what the laws have to know about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import peftx
from peftx.adapters.attachment import resolve_method
from peftx.adapters.method import AdapterMethod

__all__ = ["Case", "Images", "Sequence", "Tokens"]


@dataclass(frozen=True)
class Images:
    """Inputs (n, 3, size, size)."""

    size: int

    def __call__(self, n: int) -> tuple[Tensor, ...]:
        return (torch.randn(n, 3, self.size, self.size),)


@dataclass(frozen=True)
class Tokens:
    """Inputs (n, length) of whole numbers below `vocabulary`."""

    vocabulary: int
    length: int = 5

    def __call__(self, n: int) -> tuple[Tensor, ...]:
        return (torch.randint(0, self.vocabulary, (n, self.length)),)


@dataclass(frozen=True)
class Sequence:
    """Inputs (n, length, width)."""

    width: int = 8
    length: int = 5

    def __call__(self, n: int) -> tuple[Tensor, ...]:
        return (torch.randn(n, self.length, self.width),)


@dataclass(frozen=True)
class Case:
    """A model, inputs for n samples, and how to run it; results are (n, ...).

    `kinds`: the kinds of sites it has. `requires`: the library it comes from, if not torch alone.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]
    call: Callable[..., Tensor] = field(default=lambda model, *inputs: model(*inputs))
    kinds: tuple[str, ...] = ()
    requires: str = ""
    #: what a method that adapts sites is told to target, where the default targets do not apply
    targets: tuple[str, ...] = ()
    #: what to train besides, where the model declares no head
    also_train: tuple[str, ...] = ()
    #: sites whose value cannot matter, as a regular expression over keys
    inert: str = r"(?!)"
    #: why samples cannot go through different copies of some part of the model, if so
    unmixed: str = ""

    def __str__(self) -> str:
        return self.name

    def missing(self) -> str:
        """Why the case cannot be used here, or an empty string."""
        if self.requires and find_spec(self.requires) is None:
            return f"{self.requires} is not installed"
        return ""

    def build(self) -> nn.Module:
        """A new model in evaluation mode, always with the same values, none of them at rest."""
        torch.manual_seed(7)
        model = self.make()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() < 2:
                    parameter.add_(0.2 * torch.randn_like(parameter))
                else:
                    parameter.normal_(std=0.8 * parameter[0].numel() ** -0.5)
        if any(getattr(module, "max_norm", None) for module in model.modules()):
            self.call(model, *self.samples())  # such a table shortens its rows at their first use
        return model.eval()

    def samples(self, n: int = 4) -> tuple[Tensor, ...]:
        """Inputs for n samples, always the same."""
        torch.manual_seed(11)
        return self.inputs(n)

    def candidates(self, method: AdapterMethod, given: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Options to try in turn for a method on this model: what it targets by itself, or any site it can adapt."""
        fields = method.Config.model_fields
        options = dict(given)
        defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
        if self.also_train and "also_train" not in given and "head" in defaults.get("also_train", ()):
            options["also_train"] = list(self.also_train)
        # the models are 4 to 12 wide, where the rank of a real one would be none
        if "rank" not in given and isinstance(defaults.get("rank"), int) and defaults["rank"] > 2:
            options["rank"] = 2
        if "targets" in given or not method.kinds:
            return [options]
        found = [options, {**options, "targets": ["glob:*"]}]
        if self.targets and set(method.kinds) & set(self.kinds):
            found.insert(0, {**options, "targets": list(self.targets)})
        return found

    def options(self, method: str) -> dict[str, Any]:
        """The options `attach` uses for a method of that name."""
        return self.candidates(resolve_method(method, None, {})[1], {})[0]

    def attach(self, model: nn.Module, method: str, **options: Any) -> peftx.Adapted:
        """Attach a method with options that suit this small model."""
        return peftx.attach(model, method, **(self.options(method) | options))
