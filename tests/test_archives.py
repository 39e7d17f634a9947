"""Packing code, and refusing what must not be unpacked."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s import archives
from minik8s.archives import BadArchive, check, pack, pack_files

CODE = b"def main(params):\n    return params\n"


def contents(packed: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def tar_of(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:  # type: ignore[call-overload]
        for info, data in members:
            info.size = info.size or len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def member(name: str, type: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = type, link
    return info


NAMES = st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,2}\.x", fullmatch=True)


@given(st.dictionaries(NAMES, st.binary(max_size=50), min_size=1, max_size=6), st.randoms())
def test_the_same_files_make_the_same_bytes(files: dict[str, bytes], rng: object) -> None:
    order = list(files.items())
    rng.shuffle(order)  # type: ignore[attr-defined]
    packed = pack_files(files)
    assert pack_files(dict(order)) == packed
    assert contents(packed) == files
    check(packed)


def test_a_folder_is_packed_without_what_tools_leave(tmp_path: Path) -> None:
    for name in ("func.py", "lib/a.py", "__pycache__/func.pyc", "lib/b.pyc", ".git/config", ".venv/x", "data/big.bin",
                 "data/small.txt", "notes.md"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CODE)
    (tmp_path / ".funcignore").write_text("# large\ndata/*.bin\n*.md\n")
    before = pack(tmp_path)
    assert sorted(contents(before)) == ["data/small.txt", "func.py", "lib/a.py"]
    os.utime(tmp_path / "func.py", (1, 1))
    assert pack(tmp_path) == before


def test_zip_and_tar_make_what_their_folder_makes(tmp_path: Path) -> None:
    folder = tmp_path / "hello"
    (folder / "lib").mkdir(parents=True)
    (folder / "func.py").write_bytes(CODE)
    (folder / "lib" / "a.py").write_bytes(b"")
    wanted = pack(folder)
    with zipfile.ZipFile(tmp_path / "hello.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.write(folder / "func.py", "func.py")
        made.write(folder / "lib" / "a.py", "lib/a.py")
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        with tarfile.open(tmp_path / f"hello.{mode[2:] or 'tar'}", mode) as tar:  # type: ignore[call-overload]
            tar.add(folder, "hello")  # with the folder at its top
    for name in ("hello.zip", "hello.tar", "hello.gz", "hello.bz2", "hello.xz"):
        assert pack(tmp_path / name) == wanted, name


def test_a_file_alone(tmp_path: Path) -> None:
    (tmp_path / "add.py").write_bytes(CODE)
    assert contents(pack(tmp_path / "add.py")) == {"add.py": CODE}


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "climbs": (lambda: tar_of((member("../x"), b"1")), "outside"),
    "absolute": (lambda: tar_of((member("/etc/passwd"), b"1")), "outside"),
    "climbs later": (lambda: tar_of((member("a/../../x"), b"1")), "outside"),
    "link": (lambda: tar_of((member("a", tarfile.SYMTYPE, "/etc/passwd"), b"")), "link or a device"),
    "hard link": (lambda: tar_of((member("b"), b"1"), (member("a", tarfile.LNKTYPE, "b"), b"")), "link or a device"),
    "device": (lambda: tar_of((member("a", tarfile.CHRTYPE), b"")), "link or a device"),
    "pipe": (lambda: tar_of((member("a", tarfile.FIFOTYPE), b"")), "link or a device"),
    "twice": (lambda: tar_of((member("a"), b"1"), (member("./a"), b"2")), "twice"),
    "file and folder": (lambda: tar_of((member("a"), b"1"), (member("a/b"), b"2")), "twice"),
    "folder and file": (lambda: tar_of((member("a/b"), b"1"), (member("a"), b"2")), "twice"),
    "cut": (lambda: tar_of((member("a"), os.urandom(100_000)))[:50_000], "cannot be read"),
    "rubbish": (lambda: b"rubbish", "cannot be read"),
    "rubbish in gzip": (lambda: gzip.compress(b"rubbish" * 1000), "cannot be read"),
    "newline": (lambda: tar_of((member("a\nb"), b"1")), "no name"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(name: str, tmp_path: Path) -> None:
    make, why = HOSTILE[name]
    with pytest.raises(BadArchive, match=why):
        check(make())
    (tmp_path / "a.tar.gz").write_bytes(make())
    with pytest.raises(BadArchive, match=why):
        pack(tmp_path / "a.tar.gz")


def test_bombs_are_refused_before_they_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED", 2**20)
    monkeypatch.setattr(archives, "_HEADERS", 2**16)
    bomb = tar_of((member("zeros"), bytes(2**21)))
    assert len(bomb) < 10_000
    header = member("zeros")
    header.pax_headers = {"comment": "0" * 2**21}  # as large, where nobody looks
    for packed in (bomb, tar_of((header, b"1"))):
        with pytest.raises(BadArchive, match="unpacked"):
            check(packed)
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", bytes(2**21))
    with pytest.raises(BadArchive, match="unpacked"):
        pack(tmp_path / "b.zip")
    monkeypatch.setattr(archives, "MAX_FILES", 10)
    with pytest.raises(BadArchive, match="more than 10 files"):
        pack_files({f"f{number}": b"" for number in range(11)})


def test_folders_lead_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "func.py").write_bytes(CODE)
    (folder / "same.py").symlink_to("func.py")
    assert contents(pack(folder))["same.py"] == CODE
    (folder / "out").symlink_to("/etc/passwd")
    with pytest.raises(BadArchive, match="'out' is a link that leads out"):
        pack(folder)
    (folder / "out").unlink()
    (folder / "etc").symlink_to("/etc")
    with pytest.raises(BadArchive, match="'etc' is a link to a folder"):
        pack(folder)
    (folder / "etc").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(BadArchive, match="'pipe' is no ordinary file"):
        pack(folder)


def test_what_is_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadArchive, match="there is no file or folder"):
        pack(tmp_path / "absent")
    with pytest.raises(BadArchive, match="no files"):
        pack(tmp_path)
    (tmp_path / "x.txt").write_text("hello")
    with pytest.raises(BadArchive, match="cannot be read as zip or tar"):
        pack(tmp_path / "x.txt")
