"""One SSH connection to a cluster: a shell that stays, spoken to in frames, and one SFTP channel. asyncssh lives here.

A command of its own costs a tenth of a second over SSH; a frame in a shell that stays costs less than a millisecond.
The shell is bash without its profile files, whatever the login shell is, and what a login prints is skipped: an answer
is what stands between two lines with a number that nobody can guess.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from minik8s.hpc.remote_text import frame
from minik8s.metrics import Counter

if TYPE_CHECKING:
    import asyncssh

    from minik8s.api.kinds.hpccluster import HpcClusterSpec

CONNECT_TIMEOUT = 15.0  # seconds for TCP, keys and login
KEEPALIVE = 10.0  # seconds between signs of life; after three that are not answered the connection is dead
FRAME_TIMEOUT = 60.0  # seconds for a frame: login nodes are slow at times
AHEAD = 8  # frames that are on their way, or wait in the shell
LONGEST_ANSWER = 64 * 2**20  # bytes
COMMANDS = Counter("hpc_commands_total", "Commands sent to the shells of login nodes.")
LOGINS = Counter("hpc_connections_total", "SSH connections made to login nodes.")
BLOCK = 256 * 1024  # bytes of a file that are written at once


class Unreachable(Exception):
    """The cluster does not answer, or does not let us in. `reason` is a word for a condition, the text a sentence."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Login(NamedTuple):
    """What a Secret holds."""

    user: str
    password: str = ""
    private_key: str = ""
    passphrase: str = ""


class Answer(NamedTuple):
    code: int
    text: str


class Connection:
    """Made by `connect`. `run` and the file verbs may be called by many tasks."""

    def __init__(self, connections: list[asyncssh.SSHClientConnection], host_key: str) -> None:
        self._connections = connections  # the last is the login node's, those before lead to it
        self.host_key = host_key  # the line of known_hosts of the key that the host has shown
        self._shell: asyncssh.SSHClientProcess[bytes] | None = None
        self._sftp: asyncssh.SFTPClient | None = None
        self._ahead = asyncio.Semaphore(AHEAD)
        self._opening = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._sftp_turn = asyncio.Lock()
        self._setup = b""

    def prepare(self, setup: bytes) -> None:
        """What a new shell is told first."""
        self._setup = setup

    async def run(self, script: str, timeout: float = FRAME_TIMEOUT) -> Answer:
        """Run a script; its exit code and what it printed. Raises Unreachable: then nobody knows what was done.

        The shell does one after the other; some are sent ahead, so that a link's latency is not paid for each. Who is
        cancelled leaves an answer behind, and the next one skips it.
        """
        async with self._ahead:
            shell = None
            try:
                shell = await self._ready_shell()
                nonce = secrets.token_hex(12)
                shell.stdin.write(frame(nonce, script))
                COMMANDS.inc()
                async with self._turn, asyncio.timeout(timeout):  # turns come in the order of the lines above
                    return await _answer(shell.stdout, nonce)
            except TimeoutError:
                self._drop_shell(shell)
                raise Unreachable("Timeout", f"the login node did not answer within {timeout:.0f} s") from None
            except _errors() as error:
                self._drop_shell(shell)
                raise _translated(error) from error

    async def _ready_shell(self) -> asyncssh.SSHClientProcess[bytes]:
        async with self._opening:
            if self._shell is None:
                async with asyncio.timeout(FRAME_TIMEOUT):
                    made = await self._connections[-1].create_process(
                        "exec bash --norc --noprofile", encoding=None, stderr=_devnull()
                    )
                made.stdin.write(self._setup)
                self._shell = made
            return self._shell

    def _drop_shell(self, shell: asyncssh.SSHClientProcess[bytes] | None) -> None:
        """Whoever waits for an answer of this shell gets EOF."""
        if shell is not None:
            if self._shell is shell:
                self._shell = None
            with suppress(*_errors()):
                shell.close()

    async def _files(self) -> asyncssh.SFTPClient:
        async with self._sftp_turn:
            if self._sftp is None:
                self._sftp = await self._connections[-1].start_sftp_client()
            return self._sftp

    async def upload(self, local: str, remote: str) -> None:
        """Send a file to a partial one of the cluster, going on where an earlier try was cut off."""
        try:
            sftp = await self._files()
            present = 0
            if await sftp.exists(remote):
                present = (await sftp.stat(remote)).size or 0
            with open(local, "rb") as source:  # noqa: ASYNC230 - blocks of a local file
                size = source.seek(0, 2)
                present = present if present <= size else 0
                source.seek(present)
                async with sftp.open(remote, "rb+" if present else "wb") as target:
                    at = present
                    while block := source.read(BLOCK):
                        await target.write(block, at)
                        at += len(block)
        except _errors() as error:
            raise self._file_error(error) from error

    async def download(self, remote: str, local: str) -> None:
        try:
            sftp = await self._files()
            await sftp.get(remote, local)
        except _errors() as error:
            raise self._file_error(error) from error

    async def write(self, remote: str, data: bytes) -> None:
        try:
            sftp = await self._files()
            async with sftp.open(remote, "wb") as target:
                await target.write(data)
        except _errors() as error:
            raise self._file_error(error) from error

    def _file_error(self, error: BaseException) -> Exception:
        import asyncssh

        if isinstance(error, asyncssh.SFTPConnectionLost | asyncssh.SFTPNoConnection) or self.closed:
            self._sftp = None
            return Unreachable("ConnectionLost", "the connection to the login node was cut during a transfer")
        if isinstance(error, OSError):
            return error  # of this machine: no space, no such file
        if isinstance(error, asyncssh.SFTPError):
            return RemoteFileError(str(error))
        self._sftp = None
        return _translated(error)

    @property
    def closed(self) -> bool:
        return any(connection.is_closed() for connection in self._connections)

    async def wait_closed(self) -> None:
        await self._connections[-1].wait_closed()

    def close(self) -> None:
        for connection in reversed(self._connections):
            connection.abort()


class RemoteFileError(Exception):
    """The cluster refuses to write or to read a file: no space, no right."""


async def connect(spec: HpcClusterSpec, login: Login, *, pinned: str = "") -> Connection:
    """Log in. `pinned`: the line of the key that was trusted on first use, "" if there is none yet.

    Raises Unreachable with reason HostKeyUnknown, HostKeyChanged, LoginRefused, InvalidSecret or Unreachable.
    """
    import asyncssh

    keys = _keys(login)
    known = spec.knownHosts + ("\n" + pinned if pinned else "")
    trust = spec.hostKeyPolicy == "TrustOnFirstUse" and not known.strip()
    made: list[asyncssh.SSHClientConnection] = []
    hops = [(spec.proxyJump.host, spec.proxyJump.port, spec.proxyJump.user)] if spec.proxyJump else []
    host = spec.host
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT * (len(hops) + 1)):
            for host, port, user in [*hops, (spec.host, spec.port, "")]:
                options = {
                    "username": user or spec.user or login.user, "client_keys": keys, "agent_path": None, "config":
                    None, "password": login.password or None, "keepalive_interval": KEEPALIVE, "keepalive_count_max": 3,
                    "known_hosts": None if trust else asyncssh.import_known_hosts(known),
                    "tunnel": made[-1] if made else (), "preferred_auth": "publickey,password,keyboard-interactive",
                }  # fmt: skip
                made.append(await asyncssh.connect(host, port, **options))
    except BaseException as error:
        for connection in reversed(made):
            connection.abort()
        if isinstance(error, TimeoutError):
            text = f"{host} did not answer within {CONNECT_TIMEOUT:.0f} s"
            raise Unreachable("Timeout", text) from None
        if isinstance(error, OSError | ValueError | asyncssh.Error):
            raise _translated(error, host, known=bool(known.strip()), pinned=bool(pinned)) from error
        raise
    LOGINS.inc()
    key = made[-1].get_server_host_key()
    shown = key.export_public_key("openssh").decode().split()[:2] if key is not None else []
    name = spec.host if spec.port == 22 else f"[{spec.host}]:{spec.port}"
    return Connection(made, " ".join([name, *shown]) if shown else "")


def _keys(login: Login) -> list[asyncssh.SSHKey] | None:
    import asyncssh

    if not login.private_key:
        return None
    try:
        return [asyncssh.import_private_key(login.private_key, login.passphrase or None)]
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        raise Unreachable("InvalidSecret", f"the Secret's ssh-privatekey cannot be read: {error}") from None


def _translated(error: BaseException, host: str = "", *, known: bool = False, pinned: bool = False) -> Unreachable:
    import asyncssh

    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        if known:
            where = "status.hostKey was pinned" if pinned else "spec.knownHosts says"
            return Unreachable("HostKeyChanged", f"{host} shows another key than {where}: somebody may stand between. "
                               "If the host was set up anew, put its new key there")  # fmt: skip
        return Unreachable("HostKeyUnknown", f"the key of {host} is not known: put it into spec.knownHosts "
                           "(ssh-keyscan prints it), or set spec.hostKeyPolicy to TrustOnFirstUse")  # fmt: skip
    if isinstance(error, asyncssh.PermissionDenied):
        return Unreachable("LoginRefused", f"{host} refuses the login: is the key or the password in the Secret right, "
                           "and the user?")  # fmt: skip
    if isinstance(error, asyncssh.Error):
        return Unreachable("ConnectionLost", f"the connection to {host or 'the login node'} ended: {error}")
    return Unreachable(
        "Unreachable", f"{host or 'the login node'} cannot be reached: {str(error) or type(error).__name__}"
    )


def _errors() -> tuple[type[Exception], ...]:
    """What goes wrong with a connection or a file."""
    import asyncssh

    return (OSError, EOFError, asyncssh.Error)


def _devnull() -> int:
    import asyncssh

    value: int = asyncssh.DEVNULL
    return value


async def _answer(reader: asyncssh.SSHReader[bytes], nonce: str) -> Answer:
    await _until(reader, f"\n{nonce}-B\n".encode())
    body = await _until(reader, f"\n{nonce}-E ".encode())
    code = await _until(reader, b"\n")
    return Answer(int(code.strip() or b"255"), body.decode(errors="replace"))


async def _until(reader: asyncssh.SSHReader[bytes], mark: bytes) -> bytes:
    """What comes before `mark`, which is taken too. EOFError if the channel ends first."""
    try:
        found = await reader.readuntil(mark, 0)
    except asyncio.IncompleteReadError:
        raise EOFError("the shell on the login node has ended") from None
    if len(found) > LONGEST_ANSWER:
        raise EOFError("the login node sends more than can be read")
    return found[: -len(mark)]
