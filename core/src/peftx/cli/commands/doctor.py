"""`peftx doctor`: is this installation sound, and if not, what is the root cause."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import click

from peftx import __version__
from peftx.cli.app import State
from peftx.cli.output import print_json, print_table, table
from peftx.errors import near_matches
from peftx.plugins.api import ENV_DISABLE, ENV_ONLY
from peftx.plugins.registry import Registry

LIBRARIES = ("torch", "peftx_kernels", "accelerate", "torchvision", "torchaudio", "transformers")
REQUIRED = ("torch", "peftx_kernels", "accelerate")
VARIABLES = (
    "PEFTX_DATA",
    ENV_DISABLE,
    "PEFTX_KERNELS",
    "PEFTX_OFFLINE",
    ENV_ONLY,
    "PEFTX_RUNS",
    "PEFTX_SHARED_DATA",
)
_LOW_DISK = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. Only ``broken`` makes the command exit 1."""

    what: str
    status: Literal["ok", "warn", "broken", "absent"]
    detail: str


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(state: State, as_json: bool) -> None:
    """Check this installation: libraries (each imported in a process of its own), plugins, folders,
    environment.

    Exits 1 when something is broken; warnings are not.
    """
    registry = state.registry()
    findings = [
        Finding("python", "ok", f"{platform.python_version()} ({sys.executable})"),
        Finding("platform", "ok", f"{platform.platform()}, {os.cpu_count()} processors"),
        Finding("peftx", "ok", __version__),
        *libraries(),
        *kernels(),
        *plugins(registry),
        *folders(),
        *environment(registry),
    ]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_table(table(["what", "status", "detail"], [asdict(finding) for finding in findings]))
        counts = {status: sum(f.status == status for f in findings) for status in ("broken", "warn")}
        print(f"\n{counts['broken']} broken, {counts['warn']} warnings")
    if any(finding.status == "broken" for finding in findings):
        raise click.exceptions.Exit(1)


def libraries() -> Iterator[Finding]:
    """Import every library that can break another one."""
    from peftx.cli.probing import probe_all

    for name, probe in probe_all(LIBRARIES).items():
        if probe.ok:
            facts = [f"{key} {_fact(value)}" for key, value in probe.facts.items()]
            yield Finding(name, "ok", ", ".join([f"{probe.version} in {probe.seconds:.1f} s", *facts]))
        elif probe.missing and name not in REQUIRED:
            yield Finding(name, "absent", "not installed (optional)")
        else:
            yield Finding(name, "broken", "not installed" if probe.missing else probe.cause)


def kernels() -> Iterator[Finding]:
    """Say which implementation every kernel op runs, and why; or why that cannot be said."""
    try:
        from peftx_kernels.table import KernelError, tiers
    except ImportError as error:
        yield Finding("kernels", "broken", str(error))
        return
    try:
        chosen = tiers()
    except (KernelError, ImportError, OSError) as error:  # the last two: a torch that does not load
        yield Finding("kernels", "broken", str(error))
        return
    for tier in chosen.values():
        name = f"triton or {tier.name}" if tier.by_call else tier.name
        yield Finding(f"op {tier.op}", "ok", f"{name}: {tier.reason}")


def plugins(registry: Registry) -> Iterator[Finding]:
    """Report plugins that did not load, and those that load but cost everybody."""
    from peftx.cli.commands.plugins import complaints
    from peftx.cli.probing import probe_all

    loaded = [info for info in registry.plugins if info.status == "ok" and info.domain != "core"]
    # The first plugin that imports torch hides all later ones from the loader: look at each alone.
    hidden = any(info.imports_torch for info in registry.plugins)
    probes = probe_all(info.module.partition(":")[0] for info in loaded) if hidden else {}
    for info in registry.plugins:
        what = f"plugin {info.domain}"
        if info.status == "blocked":
            yield Finding(what, "ok", f"{info.label}, {info.cause}")
        elif info.status != "ok":
            yield Finding(what, "broken", f"{info.label}: {info.cause}")
        else:
            found = complaints(info)
            probe = probes.get(info.module.partition(":")[0])
            if probe is not None and probe.torch and not info.imports_torch:
                found.append(
                    "imports torch at the top, which delays every command; import it inside the functions"
                )
            yield Finding(what, "warn" if found else "ok", "; ".join([info.label, *found]))


def folders() -> Iterator[Finding]:
    """Say whether data and runs can be written, and how much room there is."""
    from peftx.data.cache import cache_folder
    from peftx.runs.folder import home

    for what, folder in (("data cache", cache_folder()), ("run folders", home().absolute())):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        problem = _unwritable(existing)
        if problem:
            yield Finding(what, "broken", f"{folder}: {problem}")
            continue
        free = shutil.disk_usage(existing).free
        text = f"{folder}, {free / 1024**3:.0f} GiB free"
        yield Finding(what, "warn" if free < _LOW_DISK else "ok", text)


def environment(registry: Registry) -> Iterator[Finding]:
    """Show the variables that steer peftx, those that look as if they should, and plugins they name in
    vain."""
    known = [name for info in registry.plugins for name in (info.domain, info.distribution)]
    for name in sorted(name for name in os.environ if name.startswith("PEFTX_")):
        value = os.environ[name]
        if name not in VARIABLES:
            yield Finding(name, "warn", f"unknown variable.{near_matches(name, VARIABLES, most=1)}")
            continue
        strangers = []
        if name in (ENV_DISABLE, ENV_ONLY):
            listed = [part.strip() for part in value.split(",") if part.strip()]
            strangers = [part for part in listed if part not in (*known, "all")]
        if strangers:
            yield Finding(name, "warn", f"{value}: no plugin is called {', '.join(strangers)}")
        else:
            yield Finding(name, "ok", value)


def _unwritable(folder: Path) -> str:
    if not folder.is_dir():
        return f"{folder} is a file"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return f"cannot write to {folder} ({error.strerror})"


def _fact(value: object) -> str:
    if isinstance(value, list):
        return " + ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
