"""Settings of every test session, whichever distribution it tests.

`python -m pytest` without further words shares the tests among processes where pytest-xdist is installed. `-n 0` keeps
them in one, and so does naming a file: starting more costs longer than most files take, and a debugger wants one.
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# read when torch and numpy load: threads that spin while they wait slow down whatever else the machine is doing, the
# tests included
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:  # the processes fill the cores already, and so would what they start
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# a machine that is busy is no fault of the code
settings.register_profile("peftx", deadline=None)
settings.load_profile("peftx")

# a shell that starts something in the background makes it deaf to Ctrl-C, which some tests send to what they start
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """What `-n 4 --dist worksteal` asks for, with no more than four processes, unless the caller said anything else."""
    options = config.option
    if WORKER or getattr(options, "numprocesses", 0) is not None:  # not there without xdist
        return
    if options.tx or options.dist != "no" or options.usepdb or options.collectonly:
        return
    if any(argument.partition("::")[0].endswith(".py") for argument in config.args):
        return
    if cores() > 1:
        options.numprocesses = min(4, cores())
        options.dist = "worksteal"  # neighbours stay together, and with them the fixtures they share
