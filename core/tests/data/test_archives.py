"""Archives: plain ones come out whole, hostile and damaged ones leave nothing behind."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from peftx.data.archives import extract
from peftx.errors import DataError


def make_tar(path: Path, *members: tarfile.TarInfo, mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return path


def file_member(name: str, size: int = 3) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def link_member(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def folder_member(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.parametrize(("name", "mode"), [("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz"), ("a.tar", "w")])
def test_a_tar_comes_out_whole(tmp_path: Path, name: str, mode: str) -> None:
    archive = make_tar(
        tmp_path / name,
        folder_member("set"),
        file_member("./set/b.bin"),
        file_member("set/deep/c", 5),
        mode=mode,
    )
    folder = extract(archive, tmp_path / "out")
    assert {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()} == {
        "set/b.bin": 3,
        "set/deep/c": 5,
    }


def test_a_zip_comes_out_whole_and_only_what_is_wanted(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("set/", "")
        zipped.writestr("set/b.txt", "b")
        zipped.writestr("set/notes.md", "n")
    folder = extract(archive, tmp_path / "out", wanted=lambda name: name.endswith(".txt"))
    assert [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()] == ["set/b.txt"]


@pytest.mark.parametrize(
    "name", ["../out.txt", "/etc/out.txt", "set/../../out.txt", "C:/out.txt", "set\\..\\out.txt"]
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_member_outside_the_folder_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    if kind == "tar":
        archive = make_tar(tmp_path / "a.tar", file_member("good"), file_member(name), mode="w")
    else:
        archive = tmp_path / "a.zip"
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.writestr("good", "g")
            zipped.writestr(name, "bad")
    with pytest.raises(DataError, match="leads outside its folder"):
        extract(archive, tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([archive.name, "deep"])


@pytest.mark.parametrize(
    "member",
    [
        link_member("set/link", "/etc/passwd", tarfile.SYMTYPE),
        link_member("set/link", "set/../../x", tarfile.LNKTYPE),
        link_member("set/null", "", tarfile.CHRTYPE),
        link_member("set/pipe", "", tarfile.FIFOTYPE),
    ],
    ids=["symbolic", "hard", "device", "pipe"],
)
def test_links_and_devices_are_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with pytest.raises(DataError, match="a link or device"):
        extract(make_tar(tmp_path / "a.tar.gz", member), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("set/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="a link or device"):
        extract(tmp_path / "a.zip", tmp_path / "out")


def test_absurd_sizes_are_refused(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar.gz", file_member("a", 4000), file_member("b", 4000))
    with pytest.raises(DataError, match="unpacks to more than 5,000 bytes"):
        extract(archive, tmp_path / "out", most_bytes=5000)
    with pytest.raises(DataError, match="or 1 files"):
        extract(archive, tmp_path / "out", most_members=1)
    assert extract(archive, tmp_path / "out", most_bytes=8000).is_dir()


def test_a_zip_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a", b"\0" * 100_000)
    raw = archive.read_bytes()
    size = (100_000).to_bytes(4, "little")
    archive.write_bytes(raw.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(DataError):
        extract(archive, tmp_path / "out", most_bytes=1000)
    assert not (tmp_path / "out").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: Path) -> None:
    path.write_bytes(b"this is a web page, not an archive" * 50)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, scribble, empty])
@pytest.mark.parametrize("kind", ["a.tar.gz", "a.tar.xz", "a.zip"])
def test_a_damaged_archive_is_refused(tmp_path: Path, kind: str, damage: Callable[[Path], None]) -> None:
    archive = tmp_path / kind
    noise = bytes(i * i % 251 for i in range(5000))
    if kind.endswith("zip"):
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
            zipped.writestr("a", noise)
    else:
        with tarfile.open(archive, "w:" + kind.rsplit(".", 1)[1]) as tar:  # type: ignore[call-overload]
            tar.addfile(file_member("a", len(noise)), io.BytesIO(noise))
    damage(archive)
    with pytest.raises(DataError, match="damaged or not an archive"):
        extract(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir()] == [kind]


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such archive"):
        extract(tmp_path / "a.zip", tmp_path / "out")
