"""Downloads, against a server on this machine: checksums, offline, unreachable hosts, and nothing left half
done."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peftx.data import fetch as room
from peftx.data.fetch import Remote, fetch, offline_by_environment, verify
from peftx.errors import DataError, NetworkError

BODY = bytes(range(256)) * 100
MD5 = "md5:" + hashlib.md5(BODY).hexdigest()
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY[:1000] if self.path == "/cut" else BODY)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PEFTX_OFFLINE", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def dead() -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}/file.bin"


@pytest.mark.parametrize("checksum", [MD5, SHA256])
def test_a_file_is_downloaded_once(site: str, tmp_path: Path, checksum: str) -> None:
    remote = Remote("file.bin", (f"{site}/file.bin",), checksum, len(BODY))
    path = fetch(remote, tmp_path / "deep", offline=False, what="x.y")
    assert path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path]
    # now it is there, and the network is no longer needed
    assert fetch(remote, tmp_path / "deep", offline=True, what="x.y") == path


def test_the_next_address_is_tried(site: str, dead: str, tmp_path: Path) -> None:
    remote = Remote("file.bin", (dead, f"{site}/missing", f"{site}/file.bin"), MD5)
    assert fetch(remote, tmp_path, offline=False, what="x.y").read_bytes() == BODY


@pytest.mark.parametrize("switch", ["argument", "environment"])
def test_offline_never_connects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, switch: str) -> None:
    def forbidden(*arguments: object, **options: object) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket.socket, "connect", forbidden)
    monkeypatch.setattr(socket, "getaddrinfo", forbidden)
    if switch == "environment":
        monkeypatch.setenv("PEFTX_OFFLINE", "yes")
    remote = Remote("file.bin", ("https://data.invalid/file.bin",), MD5)
    with pytest.raises(NetworkError) as caught:
        fetch(remote, tmp_path / "cache", offline=switch == "argument", what="x.y")
    message = str(caught.value)
    assert "switched off" in message and "file.bin" in message
    assert "https://data.invalid/file.bin" in message and str(tmp_path / "cache" / "file.bin") in message
    assert not (tmp_path / "cache").exists()


def test_a_wrong_checksum_keeps_nothing(site: str, tmp_path: Path) -> None:
    remote = Remote("file.bin", (f"{site}/file.bin",), "md5:" + "0" * 32)
    with pytest.raises(DataError, match="nothing was kept"):
        fetch(remote, tmp_path, offline=False, what="x.y")
    assert list(tmp_path.iterdir()) == []


def test_a_transfer_cut_short_keeps_nothing(site: str, tmp_path: Path) -> None:
    remote = Remote("file.bin", (f"{site}/cut",), MD5)
    with pytest.raises((NetworkError, DataError)):
        fetch(remote, tmp_path, offline=False, what="x.y")
    assert list(tmp_path.iterdir()) == []


def test_an_altered_file_in_place_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "file.bin").write_bytes(BODY[:-1])
    remote = Remote("file.bin", ("https://data.invalid/file.bin",), SHA256)
    with pytest.raises(DataError, match="incomplete or altered"):
        fetch(remote, tmp_path, offline=True, what="x.y")
    assert (tmp_path / "file.bin").exists()
    with pytest.raises(DataError, match="cannot read"):
        verify(tmp_path / "absent", remote)


def test_http_errors_and_closed_ports_say_where_to_put_the_file(site: str, dead: str, tmp_path: Path) -> None:
    remote = Remote("file.bin", (dead, f"{site}/missing"), MD5)
    with pytest.raises(NetworkError, match="HTTP status 404") as caught:
        fetch(remote, tmp_path, offline=False, what="x.y")
    assert "refused" in str(caught.value)
    assert f"put it at {tmp_path / 'file.bin'}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stuck", ["getaddrinfo", "create_connection"])
def test_a_silent_network_is_given_up_quickly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    ended = threading.Event()

    def silent(*arguments: object, **options: object) -> None:
        ended.wait(20)
        raise OSError("the test is over")

    monkeypatch.setattr(socket, stuck, silent)
    monkeypatch.setattr(room, "CONNECT_SECONDS", 0.3)
    remote = Remote("file.bin", ("https://one.invalid/file.bin", "https://two.invalid/file.bin"), MD5)
    begin = time.monotonic()
    with pytest.raises(NetworkError, match=r"one\.invalid: no answer within 0\.3 s; two\.invalid: no answer"):
        fetch(remote, tmp_path, offline=False, what="x.y")
    assert time.monotonic() - begin < 10  # of twenty, and far more than a busy machine needs
    ended.set()


def test_a_proxy_is_what_must_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    assert room._endpoint("https://data.invalid/file") == ("proxy.invalid", 3128)
    monkeypatch.setenv("no_proxy", "data.invalid")
    assert room._endpoint("https://data.invalid/file") == ("data.invalid", 443)


@pytest.mark.parametrize(
    ("text", "off"), [("1", True), ("yes", True), ("0", False), ("", False), ("No", False)]
)
def test_the_offline_switch(monkeypatch: pytest.MonkeyPatch, text: str, off: bool) -> None:
    monkeypatch.setenv("PEFTX_OFFLINE", text)
    assert offline_by_environment() is off
