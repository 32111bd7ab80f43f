"""`peftx completion SHELL`: the script that makes the shell complete peftx."""

from __future__ import annotations

import click

VARIABLE = "_PEFTX_COMPLETE"


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Examples:
      eval "$(peftx completion bash)"                          in ~/.bashrc
      eval "$(peftx completion zsh)"                           in ~/.zshrc
      peftx completion fish > ~/.config/fish/completions/peftx.fish
    """
    from click.shell_completion import get_completion_class

    from peftx.cli.app import cli

    found = get_completion_class(shell)
    assert found is not None  # click.Choice admits only shells click knows
    complete = found(cli, {}, "peftx", VARIABLE)
    # Not `.source()`: for bash that runs the bash on this machine to ask its version.
    click.echo(complete.source_template % complete.source_vars())
