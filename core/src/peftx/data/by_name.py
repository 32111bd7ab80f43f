"""A data set by its name, for a loader that is made of others: one to train on and another to test on, for example.

    named = named_dataset("etth1", {"train_fraction": "0.1"}, domain="timeseries", option="source")
    named.locate(ctx)
    data = named.load(ctx)

Names and options are those of the command line, whichever pack the data set comes from; a pack never imports a pack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from peftx.config.errors import as_config_error
from peftx.config.options import coerce, options_of
from peftx.data.contract import DataContext, Dataset
from peftx.errors import ConfigError

if TYPE_CHECKING:
    from peftx.plugins.descriptors import DatasetSpec
    from peftx.plugins.registry import Entry, Registry

__all__ = ["NamedDataset", "named_dataset"]


@dataclass(frozen=True, slots=True)
class NamedDataset:
    """A data set that was found, with its checked options."""

    entry: Entry[DatasetSpec]
    config: Any

    @property
    def name(self) -> str:
        """The full name, with what stood after the colon."""
        return self.entry.name + (f":{self.entry.argument}" if self.entry.argument else "")

    def locate(self, ctx: DataContext) -> None:
        """Make sure that its files are there.

        Raises:
            DataError, NetworkError: they are not and cannot be fetched.
        """
        if self.entry.spec.locate:
            self.entry.load("locate")(self.config, ctx)

    def load(self, ctx: DataContext) -> Dataset:
        """Return the data set.

        Raises:
            DataError: it cannot be read.
        """
        data: Dataset = self.entry.load()(self.config, ctx)
        return data


def named_dataset(
    name: str,
    options: Mapping[str, Any] | None = None,
    *,
    domain: str = "",
    option: str = "data",
    registry: Registry | None = None,
) -> NamedDataset:
    """Find a data set, full or bare name, the given domain's first; ``name:argument`` where it takes one.

    `options`: its own, text read as in a flag. `option`: what the name was given by, for errors about the options,
    which are ``--data.{option}-options``.

    Raises:
        UnknownNameError, PluginError: the name leads nowhere, or to a pack that is missing or broken.
        ConfigError: it lacks an argument or takes none, or an option is wrong.
    """
    from peftx.plugins import get_registry

    entry = (registry or get_registry()).resolve_dataset(name, domain)
    given = dict(options or {}) | ({"path": entry.argument} if entry.argument else {})
    if not entry.spec.config:
        if given:
            raise ConfigError(f"--data.{option}-options {next(iter(given))}: {entry.name} takes no options")
        return NamedDataset(entry, None)
    schema = entry.load("config")
    known = {one.path: one for one in options_of(schema)}
    given = {key: coerce(value, known[key]) if key in known else value for key, value in given.items()}
    try:
        return NamedDataset(entry, schema(**given))
    except ValidationError as error:
        spelled = {key: f"--data.{option}-options {key}" for key in (*schema.model_fields, *given)}
        raise as_config_error(error, spelled=spelled, known=list(schema.model_fields)) from error
