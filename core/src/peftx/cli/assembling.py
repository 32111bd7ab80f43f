"""From what was typed to a RunConfig: flags over a TOML file over defaults, every option checked under the
name the user wrote it with. Torch-free; pydantic is imported here and nowhere earlier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from peftx.cli.choosing import Chosen, choose
from peftx.config.errors import problems
from peftx.config.flags import Flags, parse, place, set_path
from peftx.config.options import Option, coerce, options_of
from peftx.config.run import CHOICES, RunConfig, TrainConfig
from peftx.config.schema import section_options
from peftx.config.toml import read
from peftx.errors import ConfigError, UserError
from peftx.plugins.registry import Registry
from peftx.plugins.targets import load_target

__all__ = ["SWITCHES", "Request", "assemble", "schemas", "top_level"]

#: Flags without a value that the commands handle themselves, besides the run's own booleans.
SWITCHES = ("help", "dry_run", "json", "offline", "best_on_test")


@dataclass(slots=True)
class Request:
    """A parsed command: what was chosen, and the parts that `config` is made of."""

    chosen: Chosen
    flags: Flags
    table: dict[str, Any] = field(default_factory=dict)
    file: str = ""
    notes: list[str] = field(default_factory=list)

    def config(self) -> RunConfig:
        """Validate everything. Raises ConfigError with one line per problem."""
        own = schemas(self.chosen)
        sections = {"": top_level(), **{name: section_options(schema) for name, schema in own.items()}}
        values, spelled = place(self.flags.flags, sections, (*CHOICES, "config", *SWITCHES))
        merged, origins = _merge(self.table, values, spelled, self.file)
        _coerce(merged, sections)
        wrong: list[str] = []
        for name in CHOICES:
            given = {key: value for key, value in _section(merged, name, self.file).items() if key != "name"}
            wrong += _check(own[name], given, name, origins, self.chosen.name_of(name))
            merged[name] = {"name": self.chosen.name_of(name), **given}
        known = [*(option.path for option in sections[""]), *CHOICES, "train"]
        known += [option.path for option in sections["train"]]
        try:
            config = RunConfig.model_validate(merged)
        except ValidationError as error:
            wrong += problems(error, spelled=origins, known=known)
        if wrong:
            raise ConfigError("\n".join(dict.fromkeys(wrong)))
        return config


def assemble(
    registry: Registry, arguments: Sequence[str], *, need_task: bool = True, switches: Sequence[str] = ()
) -> Request:
    """Parse the arguments of a run and resolve their names; `switches` are flags without a value on top of a
    run's.

    Raises ConfigError, UnknownNameError or PluginError.
    """
    flags = parse(arguments, (*SWITCHES, *switches))
    if len(flags.words) > 1:
        raise ConfigError(
            f"one target is expected, got {' '.join(flags.words)}; an option's value follows --NAME"
        )
    file = flags.text("config")
    table = read(Path(file).expanduser()) if file else {}
    typed = {section: flags.text(section) or "" for section in CHOICES}
    of_file = {section: _section(table, section, file or "").get("name", "") for section in CHOICES}
    target = flags.words[0] if flags.words else ""
    chosen = choose(registry, target, typed, of_file, need_task=need_task)
    notes = [
        note for section in CHOICES if (note := _drop_foreign(registry, chosen, section, table, file or ""))
    ]
    return Request(chosen, flags, table, file or "", notes)


def schemas(chosen: Chosen) -> dict[str, type[BaseModel] | None]:
    """The config class of each section; None where a thing has no options."""
    found: dict[str, type[BaseModel] | None] = {}
    for section in CHOICES:
        target, owner = chosen.config_target(section)
        found[section] = load_target(target, owner) if target else None
    found["train"] = TrainConfig
    return found


def _drop_foreign(registry: Registry, chosen: Chosen, section: str, table: dict[str, Any], file: str) -> str:
    """Leave out a section of the file that was written for something else than what was chosen, and say
    so."""
    given = _section(table, section, file)
    if not given.get("name") or chosen.name_of(section) == given["name"]:
        return ""
    domain = chosen.task.domain if chosen.task else ""
    try:
        if _resolved(registry, section, given["name"], domain) == chosen.name_of(section).partition(":")[0]:
            return ""
    except UserError:
        pass  # a name that leads nowhere is certainly not the chosen one
    table[section] = {}
    options = ", ".join(key for key in given if key != "name")
    if not options:
        return ""
    return f"{options} in [{section}] of {file} are for {given['name']} and left out for {chosen.name_of(section)}"


def _resolved(registry: Registry, section: str, name: str, domain: str) -> str:
    if section == "data":
        return registry.resolve_dataset(name, domain).name
    if section == "task":
        return registry.resolve_task(name, domain).name
    if section == "model":
        return registry.resolve_model(name, domain).name
    return registry.resolve_method(name, domain).name


def top_level() -> list[Option]:
    """The options of a run that belong to no section."""
    return [option for option in options_of(RunConfig) if "." not in option.path]


def _section(table: Mapping[str, Any], name: str, file: str) -> dict[str, Any]:
    value = table.get(name, {})
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, dict):
        raise ConfigError(f"{name} in {file} must be a table or a name (got {value!r})")
    if not isinstance(value.get("name", ""), str):
        raise ConfigError(f"{name}.name in {file} must be text (got {value['name']!r})")
    return value


def _merge(
    table: Mapping[str, Any], values: Mapping[str, Any], spelled: Mapping[str, str], file: str
) -> tuple[dict[str, Any], dict[str, str]]:
    merged: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for path, value in _leaves(table):
        set_path(merged, path, value)
        origins[path] = f"{path} in {file}"
    for name in table:  # a table nobody knows is one problem, named as it stands in the file
        if name not in (*CHOICES, "train"):
            origins[name] = f"{name} in {file}"
    for path, value in _leaves(values):
        set_path(merged, path, value)
    return merged, {**origins, **spelled}


def _leaves(table: Mapping[str, Any], prefix: str = "", depth: int = 0) -> list[tuple[str, Any]]:
    # Two levels are ours (section.option); what lies deeper is a value of that option.
    found: list[tuple[str, Any]] = []
    for key, value in table.items():
        if isinstance(value, Mapping) and depth == 0:
            found += _leaves(value, f"{prefix}{key}.", depth + 1)
        else:
            found.append((prefix + key, value))
    return found


def _coerce(merged: dict[str, Any], sections: Mapping[str, Sequence[Option]]) -> None:
    for name, options in sections.items():
        table = merged.get(name, {}) if name else merged
        for option in options:
            if isinstance(table, dict) and option.path in table:
                table[option.path] = coerce(table[option.path], option)


def _check(
    schema: type[BaseModel] | None, given: dict[str, Any], section: str, origins: Mapping[str, str], name: str
) -> list[str]:
    if schema is None:
        what = f"{name or section} takes no options"
        return [f"{origins.get(f'{section}.{key}', f'--{section}.{key}')}: {what}" for key in given]
    try:
        schema.model_validate(_with_argument(schema, given, section, name))
    except ValidationError as error:
        return problems(error, prefix=section, spelled=origins, known=list(schema.model_fields))
    return []


def _with_argument(schema: type[BaseModel], given: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    # ``imagefolder:PATH`` hands PATH to the option `path`.
    argument = name.partition(":")[2] if section == "data" else ""
    return {"path": argument, **given} if argument and "path" in schema.model_fields else given
