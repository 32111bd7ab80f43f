"""`python -m peftx` is `peftx`."""

from __future__ import annotations

import sys

from peftx.cli import main

if __name__ == "__main__":
    sys.exit(main())
