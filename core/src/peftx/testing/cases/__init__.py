"""Small models of every family, each with inputs and the kinds of sites it has: what the laws are run on."""

from __future__ import annotations

from peftx.testing.cases.case import Case
from peftx.testing.cases.libraries import LIBRARY_CASES
from peftx.testing.cases.plain import PLAIN_CASES, Toy

__all__ = ["CASES", "FAST", "Case", "Toy", "case_named"]

#: every case; those that need a library say so in `Case.requires`
CASES: tuple[Case, ...] = (*PLAIN_CASES, *LIBRARY_CASES)

#: a small choice in which every kind of site occurs
FAST: tuple[str, ...] = (
    "linear",
    "conv1d",
    "conv2d",
    "embedding",
    "norms",
    "packed_attention",
    "encoder",
    "timm_vit",
    "transformers_gpt2",
)

_BY_NAME = {case.name: case for case in CASES}


def case_named(name: str) -> Case:
    """The case of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in _BY_NAME:
        from peftx.errors import UnknownNameError, near_matches

        raise UnknownNameError(
            f"no case is called {name!r}.{near_matches(name, _BY_NAME)} Cases: {', '.join(_BY_NAME)}"
        )
    return _BY_NAME[name]
