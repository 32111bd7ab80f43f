"""Where a suite comes from: a pack that declares it, or a TOML file of one's own. Torch-free."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from peftx.config.errors import as_config_error
from peftx.config.suite import Suite
from peftx.config.toml import read
from peftx.errors import ConfigError, PluginError, UnknownNameError
from peftx.plugins.descriptors import SuiteSpec
from peftx.plugins.registry import Entry, Registry

__all__ = ["find_suite", "load_suite", "slashed"]


def find_suite(name: str, registry: Registry) -> tuple[str, Suite]:
    """The full name of a suite, and the suite. `name` is ``domain/suite``, ``domain.suite``, a bare name that is
    unique, or a TOML file, whose stem is its name.

    Raises:
        UnknownNameError, PluginError: no such suite is installed; the message says which are, or how to get its pack.
        ConfigError: the file is no suite.
    """
    if name.endswith(".toml"):
        path = Path(name).expanduser()
        try:
            return path.stem, Suite.model_validate(read(path))
        except ValidationError as error:
            problems = as_config_error(error, known=list(Suite.model_fields))
            raise ConfigError("\n".join(f"{path}: {line}" for line in str(problems).splitlines())) from error
    if name in registry.domains:
        own = [entry.name for entry in registry.suites.values() if entry.domain == name]
        shown = f"its suites are {', '.join(map(slashed, own))}" if own else "it has no suite"
        raise UnknownNameError(f"{name} is a domain, a suite is part of one: {shown}")
    entry = registry.resolve_suite(name)
    return entry.name, load_suite(entry)


def load_suite(entry: Entry[SuiteSpec]) -> Suite:
    """The suite of a descriptor.

    Raises:
        PluginError: its target cannot be loaded, or is none.
    """
    suite = entry.load()
    if not isinstance(suite, Suite):
        raise PluginError(
            f"the target of suite {entry.name} ({entry.plugin.label}) is a {type(suite).__name__}, expected a "
            "peftx.config.suite.Suite"
        )
    return suite


def slashed(name: str) -> str:
    """``vision.quick`` as one types it: ``vision/quick``."""
    return name.replace(".", "/", 1)
