"""The exception tree of peftx: one root, and a line between what a user can mend and what is a bug.

    PeftxError
    |-- UserError             shown as one sentence, exit status 2, no traceback
    |   |-- ConfigError       a flag, a TOML key or a config value is wrong
    |   |-- UnknownNameError  no such method, task, data set, model or suite (near matches listed)
    |   |-- PluginError       a pack is missing, broken, in conflict, or built for another API
    |   |-- DataError         data are missing, malformed, or do not fit the task
    |   |-- ModelError        a model or its weights are missing or do not fit
    |   |-- SelectionError    no site of the model matched what the adapter targets
    |   |-- ArtifactError     a saved adapter is damaged, incomplete, or belongs to another model
    |   |-- NetworkError      something is not cached and the network is off or out of reach
    |   `-- RunError          a run folder cannot be read, written, or continued
    |       `-- BusyError     another process is at work on it
    |-- AdapterError          an adapter is used outside its contract (a programming mistake)
    |-- TrainingError         training stopped itself: too little memory, or an adapter that never took effect
    |   `-- DivergedError     what is trained, or its loss, became NaN or infinite
    `-- Interrupted           training was asked to stop, and wrote what it needs to go on

Every message names what was given, what was expected, and what to do. Plugins raise `UserError` or a child of
it for failures their users can mend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AdapterError",
    "ArtifactError",
    "BusyError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "Interrupted",
    "ModelError",
    "NetworkError",
    "PeftxError",
    "PeftxWarning",
    "PluginError",
    "RunError",
    "SelectionError",
    "TrainingError",
    "UnknownNameError",
    "UserError",
    "near_matches",
]


class PeftxError(Exception):
    """Root of every error peftx raises on purpose."""


class UserError(PeftxError):
    """Something the user can mend; the command line prints it as one sentence and exits with 2."""


class ConfigError(UserError):
    """A flag, a TOML key or a configuration value is wrong."""


class UnknownNameError(UserError):
    """No method, task, data set, model or suite of that name is installed."""


class PluginError(UserError):
    """A plugin is missing, broken, in conflict with another, or built for a different plugin API."""


class DataError(UserError):
    """Data are missing, malformed, or do not fit the task."""


class ModelError(UserError):
    """A model or its weights are missing, damaged, or do not fit the task."""


class SelectionError(UserError):
    """No site of the model matched what an adapter targets."""


class ArtifactError(UserError):
    """A saved adapter is damaged, incomplete, or belongs to another model."""


class NetworkError(UserError):
    """Something is not in the cache and the network is switched off or out of reach."""


class RunError(UserError):
    """A run folder cannot be read, written, or continued."""


class BusyError(RunError):
    """Another process is at work on a run or a bench."""


class AdapterError(PeftxError):
    """An adapter is used outside its contract."""


class TrainingError(PeftxError):
    """Training stopped itself."""


class DivergedError(TrainingError):
    """What is trained, or its loss, is no number any more: the learning rate was too high."""


class Interrupted(PeftxError):
    """Training was asked to stop; the message says where it stands and how it goes on."""


class PeftxWarning(UserWarning):
    """What was asked for works, but does something else than it seems to."""


def near_matches(name: str, known: Iterable[str], most: int = 3) -> str:
    """Return ``" Did you mean a, b?"`` for the names closest to ``name``, or an empty string.

    A dotted name also matches by its last part, so ``vision.lora`` finds ``core.lora``.
    """
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(name, names, n=most, cutoff=0.6)
    tail = name.rsplit(".", 1)[-1]
    tails = {candidate.rsplit(".", 1)[-1]: candidate for candidate in names}
    close += [tails[t] for t in difflib.get_close_matches(tail, tails, n=most, cutoff=0.7)]
    unique = list(dict.fromkeys(close))[:most]
    return f" Did you mean {', '.join(unique)}?" if unique else ""
