"""One run that is killed again and again: ``resuming_chain.py OUT KILL... -- ARGUMENTS``.

Torch is imported once; every attempt is a fork of this process, killed at its moment, but for the last one, which is
let live. Prints how each ended.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from peftx.cli.main import main
from peftx.runs import rows

torch.set_num_threads(1)
assert rows  # with it everything that a run needs is imported before the first fork


def attempt(kill: str, out: Path, arguments: list[str]) -> int:
    """Begin the run, or go on with it, in a process of its own; how that one ended, as `os.waitpid` says."""
    pid = os.fork()
    if not pid:
        os.environ["KILL"] = kill
        words = ["run", "--resume", str(out)] if (out / "config.toml").is_file() else arguments
        try:
            status = main(words)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            status = 99
        sys.stdout.flush()
        os._exit(status)
    return os.waitpid(pid, 0)[1]


if __name__ == "__main__":
    at = sys.argv.index("--")
    out = Path(sys.argv[1])
    for kill in [*sys.argv[2:at], ""]:
        status = attempt(kill, out, sys.argv[at + 1 :])
        ended = (
            f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
        )
        print(f"chain: {kill or 'lives'}: {ended}", flush=True)
