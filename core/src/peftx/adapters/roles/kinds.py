"""What sort of layer a module is, told from the names of its classes alone.

Names are read through the method resolution order, so a subclass of ``nn.Linear`` is linear, and stays so
when its class is swapped for a subclass of itself. Nothing is imported: a table can be tested, and a plugin
listed, without torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["class_names", "kind_of", "own_parameters"]

_KINDS = {
    "torch.nn.modules.activation.MultiheadAttention": "packed_attention",
    "torch.nn.modules.linear.Linear": "linear",
    "torch.nn.modules.linear.Bilinear": "linear",
    "transformers.pytorch_utils.Conv1D": "linear_t",
    "transformers.modeling_utils.Conv1D": "linear_t",  # where it lived before transformers 4.17
    "torch.nn.modules.conv._ConvNd": "conv",
    "torch.nn.modules.sparse.Embedding": "embedding",
    "torch.nn.modules.sparse.EmbeddingBag": "embedding",
}
_NORM = re.compile(r"(\w*(Norm|Normalization)(\dd)?(Act(\dd)?)?|(Layer|Batch|Group|Instance|RMS|Rms)Norm\w*)")
# A block may be called SomethingPostNorm and own a layer scale; a normalisation owns nothing but these.
_NORM_PARAMETERS = frozenset(("weight", "bias", "scale", "gamma", "beta", "g"))


# keyed weakly: classes made at run time (a swapped class, one defined in a notebook cell) must not be kept
# alive
_names: WeakKeyDictionary[type, tuple[str, ...]] = WeakKeyDictionary()
_kinds: WeakKeyDictionary[type, str] = WeakKeyDictionary()


def class_names(cls: type) -> tuple[str, ...]:
    """Return ``module.qualname`` of a class and its bases, most derived first."""
    if cls not in _names:
        _names[cls] = tuple(f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__)
    return _names[cls]


def _kind_of_class(cls: type) -> str:
    if cls not in _kinds:
        names = class_names(cls)
        kind = next((_KINDS[name] for name in names if name in _KINDS), "")
        if not kind and any(_NORM.fullmatch(name.rsplit(".", 1)[-1]) for name in names):
            kind = "norm?"
        _kinds[cls] = kind
    return _kinds[cls]


def kind_of(module: Any) -> str:
    """Return ``linear``, ``linear_t``, ``conv``, ``embedding``, ``norm``, ``packed_attention``, or ``""``.

    ``linear_t`` is transformers' ``Conv1D``, whose weight is (in, out). A normalisation counts only when it
    owns parameters.
    """
    kind = _kind_of_class(type(module))
    if kind != "norm?":
        return kind
    own = frozenset(own_parameters(module))
    return "norm" if own and own <= _NORM_PARAMETERS else ""


def own_parameters(module: Any) -> Iterator[str]:
    """Yield the names of the parameters a module holds itself, not through its children."""
    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield name
