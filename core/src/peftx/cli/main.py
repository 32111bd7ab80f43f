"""The console script: global options wherever they stand, and every failure as one clear line with its exit
status.

    0    done
    1    the work itself failed (training diverged, something is broken, a score was not reproduced), or a bug
    2    the command cannot be carried out as given
    130  interrupted
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

import click

from peftx.cli.app import cli
from peftx.errors import Interrupted, PeftxWarning, TrainingError, UserError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    # read by the OpenMP runtime when torch loads: threads that spin while they wait make every step several times
    # slower as soon as another process wants a core (measured: 2.8 s against 0.7 s a step on a busy machine)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given = global_first(list(sys.argv[1:] if arguments is None else arguments))
    debug = "--debug" in given[: _globals_end(given)]
    try:
        with warnings.catch_warnings():
            # what they say stands in the results and in `explain`
            warnings.simplefilter("ignore", PeftxWarning)
            status = cli.main(given or ["--help"], prog_name="peftx", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except BrokenPipeError:
        # The reader went away (`peftx list | head`): point stdout elsewhere so that the exit does not
        # complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        return _say(_sentence(error), 2)
    except Interrupted as error:
        print(error, file=sys.stderr)
        return 130
    except UserError as error:
        if debug:
            raise
        return _say(str(error), 2)
    except TrainingError as error:
        if debug:
            raise
        return _say(str(error), 1)
    except Exception as error:
        if debug or not _is_kernel_error(error):
            raise
        return _say(str(error), 2)


def global_first(arguments: list[str]) -> list[str]:
    """Move ``--no-plugin NAME`` and ``--debug`` before the command, where the group reads them."""
    first: list[str] = []
    rest: list[str] = []
    while arguments:
        token = arguments.pop(0)
        if token == "--":
            rest += [token, *arguments]
            break
        if token == "--debug" or token.startswith("--no-plugin="):
            first.append(token)
        elif token == "--no-plugin" and arguments:
            first += [token, arguments.pop(0)]
        else:
            rest.append(token)
    return first + rest


def _globals_end(arguments: list[str]) -> int:
    end = 0
    while end < len(arguments) and arguments[end].startswith(("--debug", "--no-plugin")):
        end += 2 if arguments[end] == "--no-plugin" else 1
    return end


def _is_kernel_error(error: Exception) -> bool:
    # The kernels know nothing of our errors; theirs mostly means a wrong PEFTX_KERNELS, which a user can
    # mend.
    table = sys.modules.get("peftx_kernels.table")
    return table is not None and isinstance(error, table.KernelError)


def _sentence(error: click.ClickException) -> str:
    message = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    if isinstance(error, click.UsageError) and context is not None and context.command is not cli:
        return f"{message}; see `{context.command_path} --help`"
    return message


def _say(message: str, status: int) -> int:
    sys.stdout.flush()
    for line in message.splitlines() or [""]:
        print(f"error: {line}", file=sys.stderr)
    return status
