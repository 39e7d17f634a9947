"""The host's resolver is pointed at the cluster's DNS and put back, on a copy of the host's files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from minik8s.net import host_resolver
from minik8s.net.host_resolver import MARK, HostResolver, drop_in, pointing

ORIGINAL = "# by dhcp\nsearch lan\nnameserver 192.0.2.1\nnameserver 192.0.2.2\noptions rotate timeout:1\n"
Make = Callable[[], HostResolver]


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir()
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A resolver of the same host and data folder; each is one life of an agent."""
    return lambda: HostResolver(tmp_path / "data" / "net", "10.96.0.10", ["cluster.local"], root=tmp_path)


@pytest.fixture
def restarts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(host_resolver, "_restart_resolved", lambda: found.append(1))
    return found


def test_ours_comes_first_and_the_others_stay_behind_it() -> None:
    assert pointing(ORIGINAL, "10.96.0.10", fallbacks=True) == (
        f"{MARK}\nnameserver 10.96.0.10\nsearch lan\noptions timeout:1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
    )
    assert "192.0.2" not in pointing(ORIGINAL, "10.96.0.10", fallbacks=False)
    many = "".join(f"nameserver 192.0.2.{n}\n" for n in range(9))
    assert pointing(many, "10.96.0.10", fallbacks=True).count("nameserver") == 3
    assert pointing("", "10.96.0.10", fallbacks=True) == f"{MARK}\nnameserver 10.96.0.10\n"
    assert pointing("nameserver\nnameserver 10.96.0.10", "10.96.0.10", fallbacks=True).count("nameserver") == 1


def test_a_plain_file_is_put_back_as_it_was(etc: Path, make: Make) -> None:
    file = etc / "resolv.conf"
    file.write_bytes(ORIGINAL.encode() + b"# \xff\xfe is no UTF-8\n")
    file.chmod(0o640)
    assert make().take()
    assert not make().take()  # also in the next life: what is ours is not taken for the original
    assert file.read_text().startswith(MARK)
    assert make().text().startswith("# by dhcp")
    assert make().give_back() == [str(file)]
    assert file.read_bytes() == ORIGINAL.encode() + b"# \xff\xfe is no UTF-8\n"
    assert file.stat().st_mode & 0o777 == 0o640
    assert make().give_back() == []
    assert os.listdir(etc) == ["resolv.conf"]


def test_a_link_is_put_back_and_its_target_followed(etc: Path, make: Make, tmp_path: Path) -> None:
    target = tmp_path / "run-resolv.conf"
    target.write_text(ORIGINAL)
    (etc / "resolv.conf").symlink_to("../run-resolv.conf")
    make().take()
    assert target.read_text() == ORIGINAL
    target.write_text("nameserver 192.0.2.9\n")  # whoever keeps the target goes on
    assert make().text() == "nameserver 192.0.2.9\n"
    assert make().take()
    assert "192.0.2.9" in (etc / "resolv.conf").read_text()
    make().give_back()
    assert os.readlink(etc / "resolv.conf") == "../run-resolv.conf"


def test_a_host_without_the_file_has_none_afterwards(etc: Path, make: Make) -> None:
    make().take()
    assert make().text() == ""
    assert make().give_back() == [str(etc / "resolv.conf")]
    assert os.listdir(etc) == []


def test_what_others_write_meanwhile_counts(etc: Path, make: Make) -> None:
    file = etc / "resolv.conf"
    file.write_text(ORIGINAL)
    make().take()
    file.write_text("nameserver 192.0.2.77\n")  # a new lease
    assert make().text() == "nameserver 192.0.2.77\n"
    assert make().take()
    assert "nameserver 192.0.2.77" in file.read_text()
    make().give_back()
    assert file.read_text() == "nameserver 192.0.2.77\n"
    make().take()
    file.write_text("nameserver 192.0.2.78\n")
    assert make().give_back() == []  # it is theirs already
    assert file.read_text() == "nameserver 192.0.2.78\n"


@pytest.mark.parametrize("content", [None, b"", b"{"])
def test_a_lost_original_leaves_the_resolvers_behind_ours(
    etc: Path, make: Make, tmp_path: Path, content: bytes | None
) -> None:
    file = etc / "resolv.conf"
    file.write_text(ORIGINAL)
    make().take()
    kept = tmp_path / "data" / "net" / host_resolver.KEPT_FILE
    kept.unlink() if content is None else kept.write_bytes(content)
    assert not make().take()
    assert "192.0.2.1" in make().text()
    make().give_back()
    assert file.read_text() == "search lan\noptions timeout:1\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"


def test_a_crash_between_keeping_and_writing_costs_nothing(
    etc: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = etc / "resolv.conf"
    file.write_text(ORIGINAL)
    with monkeypatch.context() as patched:
        patched.setattr(host_resolver, "_install", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make().take()
    assert file.read_text() == make().text() == ORIGINAL
    assert make().give_back() == []
    assert file.read_text() == ORIGINAL


def test_with_resolved_only_its_drop_in_is_written(etc: Path, make: Make, tmp_path: Path, restarts: list[int]) -> None:
    stub = "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n"
    (etc / "resolv.conf").write_text(stub)
    uplinks = tmp_path / "run/systemd/resolve/resolv.conf"
    uplinks.parent.mkdir(parents=True)
    uplinks.write_text("nameserver 10.96.0.10\nnameserver 192.0.2.1\nsearch lan\n")
    assert make().take()
    assert not make().take()
    dropped = etc / "systemd/resolved.conf.d/minik8s.conf"
    assert dropped.read_text() == drop_in("10.96.0.10", ["cluster.local"])
    assert (etc / "resolv.conf").read_text() == stub
    assert make().text() == "nameserver 192.0.2.1\nsearch lan\n"
    uplinks.write_text("nameserver 10.96.0.10\n")  # what resolved's own settings named is not listed any more
    assert make().text() == "nameserver 192.0.2.1\nsearch lan\n"
    assert len(restarts) == 1
    assert make().give_back() == [str(dropped)]
    assert not dropped.parent.exists()
    assert len(restarts) == 2


def test_a_host_that_leaves_resolved_is_followed(etc: Path, make: Make, restarts: list[int]) -> None:
    (etc / "resolv.conf").write_text("nameserver 127.0.0.53\n")
    make().take()
    (etc / "resolv.conf").write_text(ORIGINAL)
    make().take()
    assert make().taken() == [etc / "resolv.conf"]
    make().give_back()
    assert (etc / "resolv.conf").read_text() == ORIGINAL
