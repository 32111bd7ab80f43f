"""Files that somebody brings: found from here or below the root, unpacked within bounds, one sentence for damage."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest

from peftx.data import files
from peftx.data.files import bounded_lines, find_file, find_folder, lines_of, opened, reading
from peftx.errors import DataError


def test_a_path_is_taken_from_here_or_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, here = tmp_path / "root", tmp_path / "here"
    for folder in (root / "sub", here):
        folder.mkdir(parents=True)
    (root / "sub" / "x.csv").touch()
    (root / "y.csv").write_text("root")
    (here / "y.csv").write_text("here")
    monkeypatch.chdir(here)
    assert find_file(Path("sub/x.csv"), root, "table") == root / "sub" / "x.csv"
    assert find_file(Path("y.csv"), root, "table").read_text() == "here"  # what is here goes before
    assert find_file(root / "y.csv", None, "table").read_text() == "root"
    assert find_folder(Path("sub"), root, "folder") == root / "sub"
    monkeypatch.setenv("HOME", str(root))
    assert find_file(Path("~/y.csv"), None, "table") == root / "y.csv"


def test_what_is_not_there_or_of_another_kind_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.csv").touch()
    for find, path, sentence in (
        (find_file, "none", f"no such file: {tmp_path / 'none'}; a table was expected"),
        (find_file, ".", f"{tmp_path} is a folder, but a table was expected"),
        (find_folder, "none", f"no such folder: {tmp_path / 'none'}; a table was expected"),
        (find_folder, "x.csv", f"{tmp_path / 'x.csv'} is a file, but a table was expected"),
    ):
        with pytest.raises(DataError) as error:
            find(tmp_path / path, None, "table")
        assert str(error.value) == sentence


@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz", "x.GZ"])
def test_compressed_or_not_the_lines_are_the_same(tmp_path: Path, name: str) -> None:
    path, text = tmp_path / name, b"a\r\nb\n\nc"
    path.write_bytes(gzip.compress(text) if name.lower().endswith("gz") else text)
    with lines_of(path) as lines:
        assert list(lines) == [b"a\r\n", b"b\n", b"\n", b"c"]
    with opened(path) as stream:
        assert stream.read(3) == b"a\r\n"


def test_a_line_without_an_end_is_not_read_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_LINE", 1000)
    stream = io.BytesIO(b"first\n" + b"x" * 1_000_000)
    lines = bounded_lines(stream, Path("x.csv.gz"))
    assert next(lines) == b"first\n"
    with pytest.raises(
        DataError, match=r"^x\.csv\.gz: line 2 has more than 1,000 bytes: it is damaged, or no "
    ):
        next(lines)
    assert stream.tell() < 10_000
    assert len(next(bounded_lines(io.BytesIO(b"x" * 1000), Path("x")))) == 1000
    (tmp_path / "big").write_bytes(b"x" * 2000)
    with lines_of(tmp_path / "big") as held, pytest.raises(DataError, match="line 1 has more than"):
        next(held)


def test_what_unpacks_to_too_much_is_stopped_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_UNPACKED", 10_000)
    packed, plain = tmp_path / "x.gz", tmp_path / "x"
    packed.write_bytes(gzip.compress(b"0123456789abcde\n" * 1_000_000))
    plain.write_bytes(b"0123456789abcde\n" * 1000)
    with (
        lines_of(packed) as lines,
        pytest.raises(DataError, match=r"unpacks to more than 10,000 bytes: .*unpack it "),
    ):
        assert len(list(lines)) < 1000
    with lines_of(plain) as lines:  # what lies on a disk has its size
        assert len(list(lines)) == 1000


@pytest.mark.parametrize(
    "damage", [b"nonsense", gzip.compress(b"text" * 1000)[:-9], gzip.compress(b"text")[:15]]
)
def test_damage_is_one_sentence(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "x.gz"
    path.write_bytes(damage)
    sentence = rf"^cannot read {path} \(.+\): it is damaged or not open to you; get it again$"
    with pytest.raises(DataError, match=sentence), reading(path), opened(path) as stream:
        stream.read()
    none = tmp_path / "none"
    with pytest.raises(DataError, match=r"\(No such file or directory\)"), reading(none), opened(none):
        pass
