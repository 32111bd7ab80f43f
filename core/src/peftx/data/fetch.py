"""Downloads: a known checksum, whole or not at all, and a quick clear answer when the network is away.

pooch does the transfer and the checksum. Around it stand the rules pooch has no word for: `--offline` and
PEFTX_OFFLINE never touch the network; a host that does not answer is given up after three seconds in all,
looking up its address included (which `requests` puts no limit on); and the message says which file is
missing, where it comes from, and where to put it by hand.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from peftx.data.cache import whole_file
from peftx.errors import DataError, NetworkError

__all__ = ["CONNECT_SECONDS", "Remote", "fetch", "has_checksum", "offline_by_environment", "verify"]

#: Patience with hosts that do not answer, all addresses of one file together.
CONNECT_SECONDS = 3.0
#: Patience with a transfer that has begun and stalls.
READ_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Remote:
    """A file on the web: its name, addresses in order of preference, checksum (``"md5:..."`` or
    ``"sha256:..."``) and size in bytes (0: unknown)."""

    name: str
    urls: tuple[str, ...]
    checksum: str
    size: int = 0


def offline_by_environment() -> bool:
    """Say whether PEFTX_OFFLINE is set to anything but ``0``, ``false``, ``no``, ``off`` or nothing."""
    return os.environ.get("PEFTX_OFFLINE", "").strip().lower() not in ("", "0", "false", "no", "off")


def fetch(remote: Remote, folder: Path, *, offline: bool, what: str) -> Path:
    """Return the verified file in `folder`, downloading it when it is not there yet.

    `what` names the data set in messages. Raises DataError when a file that is there, or what was downloaded,
    has another checksum; NetworkError when the file is absent and the network is off or out of reach.
    """
    final = folder / remote.name
    if final.exists():
        verify(final, remote)
        return final
    if offline or offline_by_environment():
        raise NetworkError(_missing(remote, final, what, "and the network is switched off"))
    causes = []
    deadline = time.monotonic() + CONNECT_SECONDS
    for url in remote.urls:
        try:
            _reach(url, deadline)
            _download(url, remote, final)
        except OSError as error:  # requests' exceptions are OSErrors too
            causes.append(f"{_host(url)}: {_cause(error)}")
        else:
            return final
    raise NetworkError(_missing(remote, final, what, f"and could not be downloaded ({'; '.join(causes)})"))


def verify(path: Path, remote: Remote) -> None:
    """Raise DataError unless the file has the remote's checksum."""
    algorithm, _, expected = remote.checksum.partition(":")
    found = _digest(path, algorithm)
    if found != expected.lower():
        raise DataError(
            f"{path} has {algorithm} {found}, but {expected} is published for {remote.name}: "
            f"it is incomplete or altered; delete it and get it again from {remote.urls[0]}"
        )


def has_checksum(path: Path, checksum: str) -> bool:
    """Whether a file has a checksum (``"md5:..."`` or ``"sha256:..."``). Raises DataError when it cannot be read."""
    algorithm, _, expected = checksum.partition(":")
    return _digest(path, algorithm) == expected.lower()


def _digest(path: Path, algorithm: str) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, algorithm).hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {path} ({error.strerror or error})") from error


def _missing(remote: Remote, final: Path, what: str, why: str) -> str:
    return f"{what}: {remote.name} is not there {why}; get it from {remote.urls[0]} and put it at {final}"


def _reach(url: str, deadline: float) -> None:
    """Connect once, giving up at `deadline`; raise OSError when that fails.

    In a thread of its own, because the look-up of a host's address cannot be interrupted.
    """
    host, port = _endpoint(url)
    failure: list[OSError] = []
    done = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            failure.append(error)
        done.set()

    threading.Thread(target=connect, daemon=True).start()
    if not done.wait(max(deadline - time.monotonic(), 0.2)):
        raise TimeoutError(f"no answer within {CONNECT_SECONDS:g} s")
    if failure:
        raise failure[0]


def _endpoint(url: str) -> tuple[str, int]:
    """Host and port that a request for `url` connects to first: the proxy's when one is configured."""
    parts = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
        parts = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _download(url: str, remote: Remote, final: Path) -> None:
    """Download `url` to `final`; raise OSError on a failed transfer, DataError on a wrong checksum."""
    import pooch

    size = f" ({remote.size / 2**20:.0f} MiB)" if remote.size else ""
    print(f"downloading {url}{size} to {final}", file=sys.stderr, flush=True)
    transfer = pooch.HTTPDownloader(
        timeout=(CONNECT_SECONDS, READ_SECONDS), chunk_size=1 << 16, progressbar=_Percent(remote.size)
    )
    with whole_file(final) as temporary:
        transfer(url, str(temporary), None)
        algorithm, _, expected = remote.checksum.partition(":")
        found = _digest(temporary, algorithm)
        if found != expected.lower():
            raise DataError(
                f"{url} gave a file with {algorithm} {found}, but {expected} is published for {remote.name}: "
                "the transfer was cut or altered and nothing was kept; try again"
            )


class _Percent:
    """Progress of one download, shown on stderr when that is a terminal; shaped as pooch asks of a bar."""

    def __init__(self, size: int) -> None:
        self.total = size
        self.seen = 0
        self.shown = -1
        self.live = sys.stderr.isatty()

    def update(self, amount: int) -> None:
        """Count `amount` more bytes."""
        self.seen += amount
        percent = min(100 * self.seen // self.total, 100) if self.total else 0
        if self.live and percent != self.shown:
            self.shown = percent
            print(f"\r{percent:3d} %", end="", file=sys.stderr, flush=True)

    def reset(self) -> None:
        """Start again from nothing; pooch does so before it counts the whole once more."""
        self.seen = 0

    def close(self) -> None:
        """End the line."""
        if self.live:
            print(file=sys.stderr)


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or url


def _cause(error: OSError) -> str:
    """A few words for a failed connection or transfer; requests' own messages are nested object dumps."""
    if isinstance(error, TimeoutError):
        return str(error) or "timed out"
    if isinstance(error, socket.gaierror):
        return "its address cannot be found"
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}"
    return error.strerror or type(error).__name__
