"""The command line: `main` is the console script. Importing this room costs click and nothing else."""

from __future__ import annotations

from peftx.cli.main import main

__all__ = ["main"]
