"""The laws, by what they look at. Importing this package enters all of them."""

from __future__ import annotations

from peftx.testing.laws import (
    copies,
    data,
    declared,
    execution,
    models,
    plugins,
    rows,
    suites,
    tasks,
    training,
    values,
)

__all__ = [
    "ORDER",
    "copies",
    "data",
    "declared",
    "execution",
    "models",
    "plugins",
    "rows",
    "suites",
    "tasks",
    "training",
    "values",
]

#: modules in the order their laws are judged: cheap and telling ones first
ORDER = (
    "declared",
    "values",
    "training",
    "copies",
    "execution",
    "rows",
    "data",
    "tasks",
    "models",
    "plugins",
    "suites",
)
