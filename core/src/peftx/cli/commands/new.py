"""`peftx new`: the first files of a plugin, or of one more method in it."""

from __future__ import annotations

from pathlib import Path

import click

from peftx.cli.app import State


@click.group("new")
def command() -> None:
    """Write a plugin of your own, or one more method into it.

    \b
    Examples:
      peftx new plugin hello
      peftx new method shift --in peftx-hello
    """


@command.command("plugin")
@click.argument("name", metavar="DOMAIN")
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write (default: peftx-DOMAIN).")
@click.option("--method", default="gain", show_default=True, help="Name of its first method.")
@click.option(
    "--licence",
    type=click.Choice(("Apache-2.0", "MIT")),
    default="Apache-2.0",
    show_default=True,
    help="Its licence.",
)
@click.option("--author", default="", help="Who holds the copyright.")
@click.pass_obj
def plugin(state: State, name: str, out: Path | None, method: str, licence: str, author: str) -> None:
    """Write a package that can be published, with one method that works and tests that pass.

    DOMAIN is the first half of every name it declares (hello.gain).

    \b
    Example:
      peftx new plugin hello --method gain --author "Ada Lovelace"
    """
    from peftx.plugins.scaffold import new_plugin

    folder = new_plugin(name, state.registry(), out=out, method=method, licence=licence, author=author)
    click.echo(f"wrote {folder}")
    click.echo("next:")
    for line in (
        f'pip install -e "{folder}[test]"',
        f"python -m pytest {folder}",
        f"peftx check {name} --fast",
    ):
        click.echo(f"  {line}")


@command.command("method")
@click.argument("name", metavar="NAME")
@click.option(
    "--in",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder of the plugin (default: this one).",
)
@click.pass_obj
def method(state: State, name: str, folder: Path) -> None:
    """Add a method to the plugin in this folder: configuration, mathematics, a test, a line in its manifest.

    \b
    Example:
      peftx new method shift
    """
    from peftx.plugins.scaffold import add_method

    written = add_method(name, folder.expanduser())
    for file in written.files:
        click.echo(f"wrote {file}")
    click.echo(f"added {written.name} to {written.manifest}")
    click.echo("next:")
    for line in (f"python -m pytest {written.files[-1]}", f"peftx check {written.name} --fast"):
        click.echo(f"  {line}")
