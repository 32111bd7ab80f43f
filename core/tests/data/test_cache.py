"""The cache folder, and things that appear in it whole or not at all."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from peftx.data.cache import cache_folder, whole_file, whole_folder
from peftx.errors import DataError


def test_cache_folder_is_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PEFTX_DATA", str(tmp_path / "there"))
    assert cache_folder() == tmp_path / "there"
    monkeypatch.setenv("PEFTX_DATA", "~/data")
    assert cache_folder() == Path.home() / "data"
    monkeypatch.delenv("PEFTX_DATA")
    assert cache_folder().is_absolute() and "peftx" in cache_folder().parts


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "file.bin"
    with whole_file(final) as temporary:
        temporary.write_bytes(b"whole")
        assert not final.exists()
    assert final.read_bytes() == b"whole"
    assert list(final.parent.iterdir()) == [final]


def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), whole_file(tmp_path / "file.bin") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_survives_a_failed_new_one(tmp_path: Path) -> None:
    final = tmp_path / "file.bin"
    final.write_bytes(b"old")
    with pytest.raises(RuntimeError), whole_file(final) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError
    assert final.read_bytes() == b"old"


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "set"
    with whole_folder(final) as temporary:
        (temporary / "a").write_text("a")
        assert not final.exists()
    assert (final / "a").read_text() == "a"
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "other") as temporary:
        (temporary / "a").write_text("a")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [final]


def test_the_faster_process_wins(tmp_path: Path) -> None:
    final = tmp_path / "set"
    with whole_folder(final) as temporary:
        (temporary / "a").write_text("mine")
        final.mkdir()
        (final / "a").write_text("theirs")
    assert (final / "a").read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(DataError, match="PEFTX_DATA"), whole_file(tmp_path / "file"):
        pass


def test_a_cache_below_a_file_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="PEFTX_DATA"), whole_file(tmp_path / "file" / "x"):
        pass
