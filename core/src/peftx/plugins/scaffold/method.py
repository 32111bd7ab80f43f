"""`peftx new method`: a further method in a plugin's folder, its line in the manifest included.

The manifest is somebody's code. It is read as a syntax tree and changed at one place, where that is certain to be
right; anything unusual is refused with the lines to add by hand.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftx.errors import ConfigError
from peftx.plugins.api import ENTRY_POINT_GROUP
from peftx.plugins.scaffold.filling import class_name, fill, method_name

__all__ = ["NewMethod", "add_method"]

HOOK = "peftx_methods"
_IMPORTS = ("MethodSpec", "Needs", "hookimpl")


@dataclass(frozen=True, slots=True)
class NewMethod:
    """What was written: the full name, the new files, and the manifest that was changed."""

    name: str
    files: tuple[Path, ...]
    manifest: Path


@dataclass(frozen=True, slots=True)
class _Project:
    folder: Path
    domain: str
    package: str
    manifest: Path
    licence: str

    @property
    def source(self) -> Path:
        return self.manifest.parent


def add_method(name: str, folder: Path) -> NewMethod:
    """Add a method to the plugin in `folder`: configuration, mathematics, a test, a line in its manifest.

    Raises:
        ConfigError: the folder is no plugin, the name is taken, or the manifest cannot be changed with certainty;
            nothing is written then.
    """
    project = _project(folder)
    domain, dot, rest = name.partition(".")
    if dot and domain != project.domain:
        raise ConfigError(f"{name} is of another domain; the plugin in {folder} owns {project.domain}")
    own = method_name(rest if dot else name)
    values = {
        "domain": project.domain,
        "package": project.package,
        "name": own,
        "Class": class_name(own),
        "licence": project.licence,
    }
    tests = project.folder / "tests"
    contents = {
        project.source / f"{own}_config.py": fill("config.py", values),
        project.source / f"{own}.py": fill("method.py", values),
        tests / f"test_{own}.py": fill("test_method.py", values),
    }
    for file in contents:
        if file.exists():
            raise ConfigError(f"{file} exists already; choose another name")
    before = project.manifest.read_text("utf-8")
    after = _with_spec(before, project, f"{project.domain}.{own}", fill("spec", values))
    _write(contents, project.manifest, after)
    return NewMethod(f"{project.domain}.{own}", tuple(contents), project.manifest)


def _project(folder: Path) -> _Project:
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise ConfigError(
            f"{folder} holds no pyproject.toml; call it in a plugin's folder, or name one with --in"
        )
    try:
        table: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    project = table.get("project", {})
    points = project.get("entry-points", {}).get(ENTRY_POINT_GROUP, {})
    if len(points) != 1:
        raise ConfigError(
            f"{file} declares {len(points) or 'no'} entry points of the group {ENTRY_POINT_GROUP}, expected one; "
            "`peftx new plugin NAME` writes a plugin"
        )
    ((domain, module),) = points.items()
    path = Path(*str(module).partition(":")[0].split("."))
    for source in (folder / "src", folder):
        manifest = source / path.with_suffix(".py")
        if manifest.is_file() and len(path.parts) > 1:
            licence = project.get("license")
            stated = licence if isinstance(licence, str) else ""
            package = ".".join(path.parts[:-1])
            return _Project(folder, domain, package, manifest, stated or "unknown")
    raise ConfigError(
        f"the module {module} that {file} names is not a file of a package in {folder / 'src'} or {folder}; add the "
        "method by hand"
    )


def _with_spec(text: str, project: _Project, name: str, spec: str) -> str:
    """The manifest with one more `yield MethodSpec(...)` at the end of its hook."""
    where = project.manifest

    def refuse(reason: str) -> ConfigError:
        return ConfigError(f"{where} {reason}; add the method by hand")

    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ConfigError(f"{where} is not valid Python (line {error.lineno}); mend it first") from None
    if any(isinstance(node, ast.Constant) and node.value == name for node in ast.walk(tree)):
        raise ConfigError(f"{where} declares {name} already; choose another name")
    hooks = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == HOOK]
    elsewhere = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name == HOOK
        and node not in hooks
    ]
    if len(hooks) > 1 or elsewhere:
        raise refuse(f"defines {HOOK} in an unusual place")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    if not hooks:
        lines += ["\n\n@hookimpl\n", f"def {HOOK}():\n", '    """The methods of this package."""\n', spec]
    else:
        hook = hooks[0]
        inside = [node for statement in hook.body for node in ast.walk(statement)]
        if any(isinstance(node, ast.Return) for node in inside):
            raise refuse(f"returns from {HOOK} instead of yielding one descriptor after another")
        if isinstance(hook.body[-1], ast.Raise | ast.While):
            raise refuse(f"ends {HOOK} with a statement that nothing can follow")
        if hook.body[0].lineno == hook.lineno:
            raise refuse(f"writes {HOOK} on one line")
        indent = " " * hook.body[0].col_offset
        body = "".join(
            indent + line.removeprefix("    ") if line.strip() else line
            for line in spec.splitlines(keepends=True)
        )
        lines.insert(hook.end_lineno or len(lines), body)
    found = "".join(lines)
    missing = [name for name in _IMPORTS if name not in _imported(tree)]
    if missing:
        found = _with_import(found, missing)
    try:
        declared = ast.parse(found)
    except SyntaxError:
        raise refuse("could not be extended with certainty") from None
    if sum(isinstance(node, ast.Constant) and node.value == name for node in ast.walk(declared)) != 1:
        raise refuse("could not be extended with certainty")
    return found


def _imported(tree: ast.Module) -> set[str]:
    return {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("peftx.plugins")
        for alias in node.names
    }


def _with_import(text: str, names: list[str]) -> str:
    lines = text.splitlines(keepends=True)
    body = ast.parse(text).body
    at = 0
    for node in body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.Import | ast.ImportFrom) or docstring:
            at = node.end_lineno or at
        else:
            break
    lines.insert(at, f"from peftx.plugins import {', '.join(names)}\n")
    return "".join(lines)


def _write(contents: dict[Path, str], manifest: Path, text: str) -> None:
    """Write the new files, the manifest last; nothing of it stays when one of them fails."""
    made: list[Path] = []
    part = manifest.with_name(f".{manifest.name}.part")
    try:
        for file, content in contents.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            made.append(file)
            file.write_text(content, encoding="utf-8", newline="\n")
        part.write_text(text, encoding="utf-8", newline="")
        part.replace(manifest)
    except BaseException as error:
        for file in (*made, part):
            file.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ConfigError(f"{manifest.parent} cannot be written: {error.strerror or error}") from error
        raise
