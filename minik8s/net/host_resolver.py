"""The host's own resolver: pointed at the cluster's DNS (`--host-dns`), and put back as others left it.

What is found is kept in a file before anything is changed, so that it can be put back after a crash too. A
resolv.conf that others write meanwhile (DHCP, VPN) is what counts from then on: it is kept, followed for names outside,
and put back in the end. Where systemd-resolved answers for the host, a drop-in of its configuration is all we write.
The host's resolvers stay in the file behind ours, and go on to be asked when no agent runs.
"""

from __future__ import annotations

import asyncio
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from minik8s.aio import backoff
from minik8s.log import get_logger

MARK = "# minik8s --host-dns: the cluster's DNS first. 'minik8s reset' puts back what was here."
KEPT_FILE = "host-resolver.json"
STUB = "127.0.0.53"  # systemd-resolved(8)
MAX_NAMESERVERS = 3  # resolver(5)
LOOK_SECONDS = 2.0
LONGEST_PAUSE = 300.0  # between looks, when another program writes the file as often as we do

log = get_logger("host resolver")


def read_resolv_conf() -> str:
    """This host's, "" for none. Blocking."""
    with suppress(OSError):
        return Path("/etc/resolv.conf").read_text("latin-1")
    return ""


class Kept(msgspec.Struct):
    """/etc/resolv.conf as others left it."""

    text: str | None = None  # None: there was none
    link: str = ""  # what it was a symbolic link to
    mode: int = 0o644


def pointing(original: str, dns_ip: str, *, fallbacks: bool) -> str:
    """A resolv.conf with our DNS first; the other resolvers behind it if the C library asks in order."""
    lines = [MARK, f"nameserver {dns_ip}"]
    others = []
    for line in original.splitlines():
        words = line.split()
        if not words or words[0].startswith(("#", ";")):
            continue
        if words[0] == "nameserver":
            others += [f"nameserver {words[1]}"] if len(words) > 1 and words[1] != dns_ip else []
        elif words[0] == "options":  # taking turns would mean asking strangers for the cluster's names
            options = [option for option in words[1:] if option != "rotate"]
            lines += [f"options {' '.join(options)}"] if options else []
        else:
            lines.append(line.rstrip())
    return "\n".join(lines + (others[: MAX_NAMESERVERS - 1] if fallbacks else [])) + "\n"


def drop_in(dns_ip: str, domains: Sequence[str]) -> str:
    """Of systemd-resolved: these domains are asked of us alone, other names of us and of the links' resolvers."""
    routed = " ".join(f"~{domain}" for domain in domains)
    # The empty one undoes what other files say: of several servers the first that once answered would be kept.
    return f"{MARK}\n[Resolve]\nDNS=\nDNS={dns_ip}\nDomains={routed}\n"


class HostResolver:
    """`folder` is where the original is kept. `root` is for tests: the host's files are looked for below it."""

    def __init__(self, folder: Path, dns_ip: str, domains: Sequence[str], *, root: Path = Path("/")) -> None:
        self._kept_file = folder / KEPT_FILE
        self._dns_ip = dns_ip
        self._domains = domains
        self._file = root / "etc/resolv.conf"
        self._uplinks = root / "run/systemd/resolve/resolv.conf"
        self._drop_in = root / "etc/systemd/resolved.conf.d/minik8s.conf"
        # musl asks all resolvers at once and believes the first: a stranger's "no such name" would win.
        self._fallbacks = platform.libc_ver()[0] == "glibc"

    def text(self) -> str:
        """The resolv.conf by which names outside are resolved: never ours, never resolved's stub. Blocking."""
        original = self._original()
        if _stub_only(original):
            uplinks, kept = self._uplinks_text(), self._kept()
            # Servers of resolved's own settings are not listed while our drop-in holds.
            return uplinks if "nameserver" in uplinks or kept is None else kept.text or uplinks
        return original

    def _uplinks_text(self) -> str:
        with suppress(OSError):
            return self._without_ours(self._uplinks.read_text("latin-1"))
        return ""

    def _original(self) -> str:
        text = self._current()
        kept = self._kept()
        if kept is None or not (text or "").startswith(MARK):
            return text or ""
        if kept.link:  # whoever keeps the link's target keeps on doing so
            with suppress(OSError):
                return (self._file.parent / kept.link).read_text("latin-1")
        return kept.text or ""

    async def run(self) -> None:
        """Point the host at us, and again when others have written the file; eternal."""
        pauses = backoff(LOOK_SECONDS, LONGEST_PAUSE)
        await self._try_to_take(first=True)
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if await self._try_to_take(first=False):
                await asyncio.sleep(next(pauses))
            else:
                pauses = backoff(LOOK_SECONDS, LONGEST_PAUSE)

    async def _try_to_take(self, *, first: bool) -> bool:
        try:
            changed = await asyncio.to_thread(self.take)
        except OSError as error:
            log.error(
                "this host cannot be made to resolve the cluster's names",
                error=str(error),
                remedy="make the file writable, or use --no-host-dns",
            )
            return True
        if changed:
            log.info("this host resolves the cluster's names" if first else "others changed resolv.conf: followed")
        return changed

    def take(self) -> bool:
        """Point the host at us; whether anything had to be changed. Blocking. Raises OSError."""
        current = self._current()
        ours = (current or "").startswith(MARK)
        if not ours and _stub_only(current or ""):
            return self._write_drop_in()
        self._remove_drop_in()
        if not ours:
            link = os.readlink(self._file) if self._file.is_symlink() else ""
            mode = 0o644 if current is None else self._file.stat().st_mode & 0o777
            self._keep(Kept(current, link, mode))
        wanted = pointing(self._original(), self._dns_ip, fallbacks=self._fallbacks)
        if ours and self._kept() is None:
            return False  # what we were pointed away from is lost; the resolvers behind ours are what is left of it
        if current == wanted:
            return False
        _install(self._file, wanted, 0o644)
        return True

    def give_back(self) -> list[str]:
        """Undo `take`, unless others have undone it; the files that were put back or removed. Blocking, idempotent."""
        done = self.taken()
        if self._file in done:
            kept = self._kept() or Kept(self._without_ours(self._current() or ""))
            if kept.link:
                _link(self._file, kept.link)
            elif kept.text is None:
                self._file.unlink(missing_ok=True)
            else:
                _install(self._file, kept.text, kept.mode)
        self._kept_file.unlink(missing_ok=True)
        self._remove_drop_in()
        return [str(path) for path in done]

    def taken(self) -> list[Path]:
        """The host's files that are as we made them. Blocking."""
        found = [self._file] if (self._current() or "").startswith(MARK) else []
        return found + ([self._drop_in] if self._drop_in.exists() else [])

    def _without_ours(self, text: str) -> str:
        ours = (MARK, f"nameserver {self._dns_ip}")
        return "".join(f"{line}\n" for line in text.splitlines() if line not in ours)

    def _current(self) -> str | None:
        try:
            return self._file.read_text("latin-1")  # whatever bytes are in it, they come back
        except OSError:  # none, or a link to nothing
            return None

    def _kept(self) -> Kept | None:
        try:
            return msgspec.json.decode(self._kept_file.read_bytes(), type=Kept)
        except (OSError, msgspec.DecodeError):
            return None

    def _keep(self, kept: Kept) -> None:
        self._kept_file.parent.mkdir(parents=True, exist_ok=True)
        _replace(self._kept_file, msgspec.json.encode(kept), 0o600)

    # -- systemd-resolved

    def _write_drop_in(self) -> bool:
        wanted = drop_in(self._dns_ip, self._domains)
        with suppress(OSError):
            if self._drop_in.read_text() == wanted:
                return False
        if not self._drop_in.exists():
            self._keep(Kept(self._uplinks_text()))
        self._drop_in.parent.mkdir(parents=True, exist_ok=True)
        _replace(self._drop_in, wanted.encode("latin-1"), 0o644)
        _restart_resolved()
        return True

    def _remove_drop_in(self) -> None:
        if not self._drop_in.exists():
            return
        self._drop_in.unlink()
        with suppress(OSError):  # others' drop-ins are there
            self._drop_in.parent.rmdir()
        _restart_resolved()


def _stub_only(text: str) -> bool:
    servers = {
        line.split()[1] for line in text.splitlines() if line.startswith("nameserver ") and len(line.split()) > 1
    }
    return servers == {STUB}


def _restart_resolved() -> None:
    """Where systemd does not run it, whoever does has to."""
    if not Path("/run/systemd/system").is_dir():
        return
    done = subprocess.run(["systemctl", "try-restart", "systemd-resolved.service"], capture_output=True, check=False)
    if done.returncode:
        log.warning(
            "systemd-resolved did not restart",
            error=done.stderr.decode(errors="replace").strip(),
            remedy="restart it by hand: 'systemctl restart systemd-resolved'",
        )


def _install(path: Path, text: str, mode: int) -> None:
    """A new file in the place of whatever is there; into the old one where that is mounted (containers)."""
    data = text.encode("latin-1")
    try:
        _replace(path, data, mode)
    except OSError:
        if path.is_symlink() or not path.exists():
            raise
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:  # never empty in between: whoever reads just then sees one text or the other
            os.pwrite(descriptor, data, 0)
            os.ftruncate(descriptor, len(data))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _replace(path: Path, data: bytes, mode: int) -> None:
    """Durable and atomic."""
    fresh = path.with_name(f".{path.name}.minik8s")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        try:
            os.write(descriptor, data)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _link(path: Path, target: str) -> None:
    fresh = path.with_name(f".{path.name}.minik8s")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    os.replace(fresh, path)
