"""Files of volumes: swapped as one, never outside their folder."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minik8s.api.kinds.pod import HostPathVolume
from minik8s.kubelet.file_tree import File, UnsafePath, check_relative, give_to_group, open_inside, write_tree
from minik8s.kubelet.mounts import unmount
from minik8s.kubelet.volume_sources import MountFailed
from minik8s.kubelet.volumes import check_host_path, expand, pin_sub_path, safe_name

names = st.text("ab.", min_size=1, max_size=3).filter(lambda name: not name.startswith("..") and name != ".")
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


def shown(folder: Path) -> dict[str, bytes]:
    """What a container finds: the visible files, without the layout's own."""
    found = {}
    for base, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith("..")]
        for name in files:
            path = Path(base, name)
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def consistent(files: dict[str, bytes]) -> bool:
    return not any(a != b and b.startswith(a + "/") for a in files for b in files)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(paths, st.binary(max_size=5), max_size=4).filter(consistent), min_size=1, max_size=4))
def test_a_folder_shows_what_was_written_last(states):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "v"
        for state in states:
            wanted = {path: File(data, 0o640) for path, data in state.items()}
            write_tree(folder, wanted)
            assert shown(folder) == state
            assert write_tree(folder, wanted) is False, "writing the same again changes nothing"
            assert len([e for e in folder.iterdir() if e.name.startswith("..2")]) == 1


def test_modes_and_group(tmp_path: Path):
    write_tree(tmp_path / "v", {"a": File(b"x", 0o400)}, gid=4242)
    found = (tmp_path / "v" / "a").stat()
    assert stat.S_IMODE(found.st_mode) == 0o440
    assert found.st_gid == 4242


@pytest.mark.parametrize("path", ["", "/a", "../a", "a/../../b", "..data", "..", "a/..", "a\0b"])
def test_paths_that_could_leave_are_refused(path: str, tmp_path: Path):
    with pytest.raises(UnsafePath):
        check_relative(path)
    with pytest.raises(UnsafePath):
        write_tree(tmp_path / "v", {path: File(b"", 0o644)})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("uid", ["", ".", "..", "../x", "a/b", "/etc", "a\n", "-a"])
def test_names_that_are_no_folder_are_refused(uid: str):
    with pytest.raises(MountFailed):
        safe_name(uid)


def test_a_link_out_of_the_volume_is_refused(tmp_path: Path):
    volume, secret = tmp_path / "v", tmp_path / "secret"
    volume.mkdir()
    secret.mkdir()
    (volume / "out").symlink_to(secret)
    (volume / "up").symlink_to("..")
    (volume / "abs").symlink_to("/etc/passwd")
    for path in ("out", "out/x", "up", "up/secret", "abs"):
        with pytest.raises(UnsafePath):
            open_inside(volume, path)
    assert list(secret.iterdir()) == []


def test_a_link_inside_the_volume_is_followed_and_folders_are_made(tmp_path: Path):
    (tmp_path / "v" / "real").mkdir(parents=True)
    (tmp_path / "v" / "link").symlink_to("real")
    os.close(open_inside(tmp_path / "v", "link/new/deep"))
    assert (tmp_path / "v" / "real" / "new" / "deep").is_dir()


@pytest.mark.root
def test_a_pinned_sub_path_stays_what_it_was(tmp_path: Path):
    (tmp_path / "v" / "sub").mkdir(parents=True)
    (tmp_path / "v" / "sub" / "file").write_text("mine")
    pin = pin_sub_path(tmp_path / "v", "sub", tmp_path / "pins" / "0")
    try:
        (tmp_path / "v" / "sub").rename(tmp_path / "v" / "gone")
        (tmp_path / "v" / "sub").symlink_to("/etc")
        assert (pin / "file").read_text() == "mine"
        assert not (pin / "passwd").exists()
    finally:
        unmount(pin)


def test_give_to_group(tmp_path: Path):
    (tmp_path / "v" / "d").mkdir(parents=True)
    (tmp_path / "v" / "d" / "f").write_text("")
    (tmp_path / "v" / "l").symlink_to("/etc/passwd")
    before = os.stat("/etc/passwd")
    give_to_group(tmp_path / "v", 4242)
    assert (tmp_path / "v" / "d").stat().st_gid == 4242
    assert stat.S_IMODE((tmp_path / "v" / "d").stat().st_mode) & 0o2770 == 0o2770
    assert stat.S_IMODE((tmp_path / "v" / "d" / "f").stat().st_mode) & 0o660 == 0o660
    assert os.stat("/etc/passwd") == before


def test_host_paths_are_what_their_type_says(tmp_path: Path):
    check_host_path(HostPathVolume(str(tmp_path / "d"), "DirectoryOrCreate"))
    check_host_path(HostPathVolume(str(tmp_path / "f"), "FileOrCreate"))
    check_host_path(HostPathVolume("/dev/null", "CharDevice"))
    for path, kind in ((tmp_path / "f", "Directory"), (tmp_path / "d", "File"), (tmp_path / "no", "Socket")):
        with pytest.raises(MountFailed, match="hostPath type check failed"):
            check_host_path(HostPathVolume(str(path), kind))
    with pytest.raises(MountFailed):
        check_host_path(HostPathVolume("/tmp/../etc", ""))


def test_sub_path_expressions():
    assert expand("$(A)/$$(A)/x", {"A": "1"}) == "1/$(A)/x"
    with pytest.raises(MountFailed):
        expand("$(B)", {"A": "1"})
