"""Arrays out of MATLAB files of version 5, which hold numbers and text and run nothing when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peftx.errors import DataError

__all__ = ["read_arrays"]


def read_arrays(path: Path, *names: str) -> list[Any]:
    """Return the numeric arrays of these names.

    Raises DataError when the file cannot be read or has no such array.
    """
    import numpy as np
    from scipy.io import loadmat

    try:
        held = loadmat(path, variable_names=list(names))
    except Exception as error:  # on a file that is none, its reader stumbles in every way
        cause = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(
            f"cannot read {path} ({cause}): it is damaged or no MATLAB file of version 5; get it again from its source"
        ) from error
    for name in names:
        found = held.get(name)
        if not isinstance(found, np.ndarray) or found.dtype.kind not in "iuf":
            raise DataError(f"{path} has no array of numbers called {name!r}; get it again from its source")
    return [held[name] for name in names]
