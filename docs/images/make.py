"""The pictures of pages in this folder, taken again: a headless Chromium looks at a run and at a bench that were done.

    python docs/images/make.py --run RUN [--bench BENCH] [--gallery RUN]

RUN and BENCH are folders of `peftx run` and `peftx bench`; they are only read. The pictures are report_run.png,
report_run_dark.png, report_bench.png and report_gallery.png (the panel of images alone), 1,280 pixels wide.
PEFTX_BROWSER may name the browser.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from peftx.bench.page import write_page
from peftx.plugins import get_registry
from peftx.report import write_run

HERE = Path(__file__).parent
WIDTH, HEIGHT, GALLERY = 1280, 1650, 1230
MOST = 300_000
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars"
).split()
DARK = "--blink-settings=preferredColorScheme=0"


def main() -> int:
    """Take the pictures that were asked for; 1 when one is too large to be kept in a repository."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, help="folder of a finished run")
    parser.add_argument("--bench", type=Path, help="folder of a finished bench")
    parser.add_argument("--gallery", type=Path, help="folder of a finished run of vision, for its images")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the pictures (default: this one)")
    given = parser.parse_args()
    registry, taken = get_registry(), []
    with tempfile.TemporaryDirectory() as temporary:
        page, profile = Path(temporary) / "page.html", Path(temporary) / "profile"
        if given.run:
            write_run(given.run, registry, page)
            taken.append(picture(page, given.out / "report_run.png", profile))
            taken.append(picture(page, given.out / "report_run_dark.png", profile, DARK))
        if given.bench:
            write_page(given.bench, registry, page)
            taken.append(picture(page, given.out / "report_bench.png", profile))
        if given.gallery:
            write_run(given.gallery, registry, page)
            page.write_text(alone(page.read_text("utf-8"), "Images"), encoding="utf-8")
            taken.append(picture(page, given.out / "report_gallery.png", profile, height=GALLERY))
    for path in taken:
        print(f"{path}: {path.stat().st_size:,} bytes")
    return int(any(path.stat().st_size > MOST for path in taken))


def alone(text: str, title: str) -> str:
    """A page with one of its sections alone."""
    sections = re.findall(r"<section .*?</section>", text, re.S)
    wanted = next(one for one in sections if f"<h2>{title}</h2>" in one)
    head = text.partition("<body>")[0]
    return f'{head}<body><main class="wide">{wanted}</main></body></html>'


def picture(page: Path, out: Path, profile: Path, *more: str, height: int = HEIGHT) -> Path:
    """The top of a page, as a picture."""
    command = [browser(), *FLAGS, *more, f"--user-data-dir={profile}", f"--window-size={WIDTH},{height}"]
    out = out.resolve()
    subprocess.run(
        [*command, f"--screenshot={out}", page.as_uri()], check=True, timeout=120, stderr=subprocess.DEVNULL
    )
    return out


def browser() -> str:
    """The browser PEFTX_BROWSER names, or one that is installed."""
    names = (
        os.environ.get("PEFTX_BROWSER"),
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    )
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        sys.exit("no browser: install Chromium, or name one with PEFTX_BROWSER")
    return found


if __name__ == "__main__":
    sys.exit(main())
