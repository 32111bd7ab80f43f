"""Where a model keeps its classification head: read from what the model declares, never guessed from a name.

A substring such as "head" would catch ConvNeXt's ``head.norm`` (a pre-trained LayerNorm), ``conv_head`` and
``MultiheadAttention``. In order: an attribute ``peftx_head`` of the model, timm's
``pretrained_cfg["classifier"]`` (a path, or a tuple of paths), the ``heads`` of a role table, and the class
names of transformers' task models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from peftx.adapters.roles.kinds import class_names
from peftx.adapters.roles.registry import tables
from peftx.adapters.roles.table import matches_class

__all__ = ["head_of", "inside"]

# transformers names the class after the task and the attribute after the library's own habit; the first of
# these attributes that exists is the head. The pooler stays trunk, as everywhere in transformers.
_TASKS = re.compile(
    r"transformers\.models\.\w+\.modeling_\w+\.\w+For"
    r"(Sequence|Token|Image|Audio|AudioFrame|Video|Multiple)?"
    r"(Classification|Choice|QuestionAnswering)(WithTeacher)?"
)
_ATTRIBUTES = ("classifier", "score", "classification_head", "qa_outputs")


def head_of(model: Any) -> tuple[str, ...]:
    """Return the module paths of the classification head or heads, in the model's order; empty when none.

    Only modules that hold parameters count, so a model created without classes has no head. A known model
    inside a bigger module is found; when a module declares heads, what is inside it is not searched further.
    """
    found: list[str] = []
    stack: list[tuple[str, Any]] = [("", model)]
    while stack:
        path, module = stack.pop()
        heads = _declared(module)
        if heads:
            found.extend(f"{path}.{head}" if path else head for head in heads)
            continue
        children = [
            (f"{path}.{name}" if path else name, c) for name, c in module._modules.items() if c is not None
        ]
        stack.extend(reversed(children))
    return tuple(dict.fromkeys(found))


def inside(path: str, heads: tuple[str, ...]) -> bool:
    """Whether a path is one of the heads or lies below one."""
    return any(path == head or path.startswith(head + ".") for head in heads)


def _declared(module: Any) -> tuple[str, ...]:
    own = getattr(module, "peftx_head", None)
    if own is not None:
        return (own,) if isinstance(own, str) else tuple(own)
    names = class_names(type(module))
    if any(name.startswith("timm.") for name in names):
        heads = _existing(module, _timm_classifier(module))
        if heads:
            return heads
    for table in tables():
        for head in table.heads:
            if matches_class(head.classes, names):
                return _existing(module, head.paths)
    if any(_TASKS.fullmatch(name) for name in names):
        for attribute in _ATTRIBUTES:
            if heads := _existing(module, (attribute,)):
                return heads
    return ()


def _timm_classifier(module: Any) -> tuple[str, ...]:
    for name in ("pretrained_cfg", "default_cfg"):
        config = getattr(module, name, None)
        if isinstance(config, Mapping) and (classifier := config.get("classifier")):
            return (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return ()


def _existing(module: Any, paths: tuple[str, ...]) -> tuple[str, ...]:
    """Keep the paths that lead to a module with parameters: a head replaced by nn.Identity is no head."""
    return tuple(path for path in paths if _has_parameters(module, path))


def _has_parameters(module: Any, path: str) -> bool:
    for name in path.split("."):
        module = module._modules.get(name)
        if module is None:
            return False
    return next(module.parameters(), None) is not None
