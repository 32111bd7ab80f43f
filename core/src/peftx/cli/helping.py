"""The option tables of `run X --help`, read off the schemas of what was chosen. Needs pydantic, never
torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftx.cli.assembling import assemble, schemas, top_level
from peftx.cli.choosing import NOTHING, Chosen
from peftx.config.options import Option
from peftx.config.run import CHOICES
from peftx.config.schema import OptionRow, row, section_options
from peftx.errors import UserError

if TYPE_CHECKING:
    import click

    from peftx.plugins.registry import Registry

__all__ = ["flag_names", "shortest", "write_options"]


def write_options(formatter: click.HelpFormatter, registry: Registry, arguments: Sequence[str]) -> None:
    """Write one section of options for the run itself and one for each chosen thing that has options."""
    chosen = assemble(registry, arguments, need_task=False).chosen if arguments else NOTHING
    options = _all_options(chosen)
    short = shortest(options)
    with formatter.section("Run"):
        formatter.write_dl([_line(row(option, "", short)) for option in options[""]])
    for name in (*CHOICES, "train"):
        if options[name]:
            with formatter.section(_title(chosen, name)):
                formatter.write_dl([_line(row(option, name, short)) for option in options[name]])


def flag_names(registry: Registry, arguments: Sequence[str]) -> list[str]:
    """Every flag that makes sense after these arguments, for completion."""
    try:
        chosen = assemble(registry, arguments, need_task=False).chosen
    except UserError:
        chosen = NOTHING
    options = _all_options(chosen)
    short = shortest(options)
    own = [f"--{name}" for name in (*CHOICES, "config", "dry-run", "json", "help")]
    return own + [row(option, name, short).flag for name, found in options.items() for option in found]


def shortest(options: dict[str, list[Option]]) -> set[str]:
    """Full paths that may be written without their section, because no other section has that name."""
    counts = Counter(option.path for found in options.values() for option in found)
    return {
        f"{name}.{option.path}"
        for name, found in options.items()
        for option in found
        if name and counts[option.path] == 1
    }


def _all_options(chosen: Chosen) -> dict[str, list[Option]]:
    return {"": top_level(), **{name: section_options(schema) for name, schema in schemas(chosen).items()}}


def _line(shown: OptionRow) -> tuple[str, str]:
    return shown.usage, shown.note


def _title(chosen: Chosen, section: str) -> str:
    if section == "train":
        return "Training"
    name = chosen.name_of(section)
    entry: Any = getattr(chosen, section)
    return f"{section.capitalize()} {name}" + (f" ({entry.spec.summary})" if entry is not None else "")
