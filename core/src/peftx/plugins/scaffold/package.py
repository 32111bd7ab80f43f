"""`peftx new plugin`: a whole package whose tests pass at once."""

from __future__ import annotations

import datetime
import keyword
import os
import re
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from peftx import __version__
from peftx.errors import ConfigError
from peftx.plugins.api import PLUGIN_API
from peftx.plugins.catalogue import CATALOGUE
from peftx.plugins.registry import Registry
from peftx.plugins.scaffold.filling import class_name, fill, method_name
from peftx.plugins.validation import DOMAIN

__all__ = ["LICENCES", "new_plugin"]

LICENCES = ("Apache-2.0", "MIT")
#: words that would make a distribution's name another one's
_TAKEN = {"core": "peftx itself", "kernels": "peftx-kernels"}


def new_plugin(
    name: str,
    registry: Registry,
    *,
    out: Path | None = None,
    method: str = "gain",
    licence: str = LICENCES[0],
    author: str = "",
) -> Path:
    """Write a package for the domain `name` with one method; whole or not at all.

    Args:
        name: the domain, which is the first half of every name the plugin declares.
        registry: what is installed, so that no domain is taken twice.
        out: the folder to write, ``peftx-NAME`` by default; it must not exist, or be empty.
        method: the name of its first method.
        licence: one of `LICENCES`.
        author: who holds the copyright.

    Returns:
        The folder.

    Raises:
        ConfigError: the name cannot be used or is taken, or the folder holds something.
    """
    _check_domain(name, registry)
    method_name(method)
    if licence not in LICENCES:
        raise ConfigError(f"--licence must be one of {', '.join(LICENCES)} (got {licence})")
    distribution, package = f"peftx-{name.replace('_', '-')}", f"peftx_{name}"
    folder = Path(out if out is not None else distribution).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not an empty folder; name another one with --out")
    author = author.strip() or f"The {distribution} authors"
    if re.search(r'["\\\n]', author):
        raise ConfigError(f"--author may hold no quotes, backslashes or line ends (got {author!r})")
    values = {
        "domain": name,
        "distribution": distribution,
        "package": package,
        "name": method,
        "Class": class_name(method),
        "licence": licence,
        "author": author,
        "year": str(datetime.date.today().year),
        "pin": _pin(),
        "api": str(PLUGIN_API),
    }
    source = f"src/{package}"
    _write(
        folder,
        {
            "pyproject.toml": fill("pyproject.toml", values),
            "README.md": fill("README.md", values),
            "LICENSE": fill(f"LICENSE-{licence}", values),
            ".gitignore": fill("gitignore", values),
            f"{source}/__init__.py": fill("init.py", values),
            f"{source}/py.typed": "",
            f"{source}/plugin.py": fill("plugin.py", values) + fill("spec", values),
            f"{source}/{method}_config.py": fill("config.py", values),
            f"{source}/{method}.py": fill("method.py", values),
            f"tests/test_{method}.py": fill("test_method.py", values),
            "tests/test_plugin.py": fill("test_plugin.py", values),
        },
    )
    return folder


def _check_domain(name: str, registry: Registry) -> None:
    if not DOMAIN.fullmatch(name) or keyword.iskeyword(name) or name.endswith("_") or "__" in name:
        raise ConfigError(
            f"{name!r} cannot be a domain; use lower case letters, digits and single _, beginning with a letter, no "
            "word of Python's own"
        )
    if name in _TAKEN:
        raise ConfigError(f"the domain {name} belongs to {_TAKEN[name]}; choose another name")
    if name in CATALOGUE:
        raise ConfigError(
            f"the domain {name} is peftx's own pack {CATALOGUE[name].distribution}; choose another name"
        )
    for info in registry.plugins:
        if info.domain == name:
            raise ConfigError(
                f"the domain {name} is claimed by {info.label}, installed here; choose another name"
            )
    distribution = f"peftx-{name.replace('_', '-')}"
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return
    raise ConfigError(f"a distribution {distribution} is installed here already; choose another name")


def _pin() -> str:
    major, minor = __version__.split(".")[:2]
    return f">={major}.{minor},<{major}.{int(minor) + 1}"


def _write(folder: Path, contents: dict[str, str]) -> None:
    """Write all files beside the folder, then give them its name."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, text in contents.items():
                file = part / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8", newline="\n")
            part.chmod(0o777 & ~_umask())
            if folder.exists():
                folder.rmdir()  # an empty one: an error says when it is not any more
            part.rename(folder)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
