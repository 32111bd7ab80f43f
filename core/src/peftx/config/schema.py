"""Option tables for `run X --help` and `info X`, read off the pydantic schemas. Torch-free."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass

from pydantic import BaseModel

from peftx.config.options import Option, options_of

__all__ = ["OptionRow", "row", "rows", "section_options"]


@dataclass(frozen=True, slots=True)
class OptionRow:
    """One line of an option table."""

    flag: str
    type: str
    default: str
    help: str
    bounds: str = ""

    def to_dict(self) -> dict[str, str]:
        """For `--json`."""
        return asdict(self)

    @property
    def usage(self) -> str:
        """``--rank INT``."""
        return f"{self.flag} {self.type}".rstrip()

    @property
    def note(self) -> str:
        """Help, bounds and default in one string."""
        facts = [self.bounds] if self.bounds else []
        if self.default == "required":
            facts.append("required")
        elif self.default:
            facts.append(f"default {self.default}")
        return f"{self.help} [{'; '.join(facts)}]".strip() if facts else self.help


def section_options(schema: type[BaseModel] | None) -> list[Option]:
    """The options of a schema, none when a thing has no config."""
    return [] if schema is None else list(options_of(schema))


def row(option: Option, section: str = "", short: Collection[str] = ()) -> OptionRow:
    """One line for an option; its section stands before the flag unless the full path is in `short`."""
    path = f"{section}.{option.path}" if section else option.path
    return OptionRow(
        flag=f"--{option.path if path in short else path}".replace("_", "-"),
        type=option.type_label,
        default=option.default_text,
        help=option.help,
        bounds=option.bounds,
    )


def rows(schema: type[BaseModel] | None, section: str = "") -> list[OptionRow]:
    """The option table of a schema, full flags."""
    return [row(option, section) for option in section_options(schema)]
