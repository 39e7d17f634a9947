"""Requests that leave the master for others' sake: only to where they may go, and at most so much of an answer is read.

The check is on the address that is connected to, after resolving; redirects are answers like any other.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from minik8s.faas.egress import Egress

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

    import aiohttp

CONNECT_TIMEOUT = 10.0  # seconds
PARALLEL = 512  # connections at once
KEEP = 15.0  # seconds that an idle connection is kept: less than servers do, or requests would come to closed ones
_SERVICE = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc(\..+)?")
Services = Callable[[str, str], str]  # (namespace, name) -> cluster address, "" if there is none


class Unreachable(Exception):
    """There was no whole answer. `sent`: the request may have arrived all the same."""

    def __init__(self, text: str, *, sent: bool) -> None:
        super().__init__(text)
        self.sent = sent


class Refused(Exception):
    """The address is out of bounds."""


class Reply(NamedTuple):
    """`headers` have lower case names; `cut`: the body was larger than what is read of it."""

    code: int
    headers: dict[str, str]
    body: bytes
    cut: bool


class Outbound:
    """`run()` owns the connections and is eternal. `service` resolves names of the cluster, NAME.NS.svc.

    `context` is what TLS goes by; None: the system's authorities.
    """

    def __init__(
        self, egress: Egress, service: Services = lambda namespace, name: "",
        context: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:  # fmt: skip
        self._egress = egress
        self._service = service
        self._context = context
        self._session: aiohttp.ClientSession | None = None
        self._wanted = asyncio.Event()
        self._opened = asyncio.Event()

    async def run(self) -> None:
        """The client is read and made when the first request needs it: most clusters never do."""
        await self._wanted.wait()
        async with self._open() as self._session:
            self._opened.set()
            await asyncio.Event().wait()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[aiohttp.ClientSession]:
        import aiohttp

        connector = aiohttp.TCPConnector(limit=PARALLEL, resolver=_resolver(self.addresses), keepalive_timeout=KEEP,
                                         ssl=self._context() if self._context is not None else True)  # fmt: skip
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=True
        ) as session:
            yield session

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        largest: int,
        seconds: float | None = None,
        encoded: bool = False,
    ) -> Reply:
        """Ask once; `encoded`: the URL is sent as it is. Raises Unreachable, Refused."""
        import aiohttp
        from yarl import URL

        self._wanted.set()
        await self._opened.wait()
        assert self._session is not None
        try:
            host = urlsplit(url).hostname or ""
            if _is_address(host) and (why := self._egress.refusal(host)):  # the resolver is not asked about these
                raise Refused(why)
            target = URL(url).update_query(query) if query else URL(url, encoded=encoded)
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    method,
                    target,
                    headers=headers,
                    data=body,
                    allow_redirects=False,
                    skip_auto_headers=("content-type",),
                ) as answer,
            ):
                read = await answer.content.read(largest + 1)
                while len(read) <= largest and (more := await answer.content.read(largest + 1)):
                    read += more
                found = {name.lower(): value for name, value in answer.headers.items()}
                return Reply(answer.status, found, read[:largest], len(read) > largest)
        except _OutOfBounds as error:
            raise Refused(str(error)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            if isinstance(error.__cause__, _OutOfBounds):
                raise Refused(str(error.__cause__)) from None
            never = aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | ValueError
            text = str(error) or (f"no answer within {seconds} s" if isinstance(error, TimeoutError) else "")
            raise Unreachable(text or type(error).__name__, sent=not isinstance(error, never)) from None

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where a host may be reached. OSError if there is no such place, `_OutOfBounds` if it is out of bounds."""
        match = _SERVICE.fullmatch(host)
        if match is not None and (address := self._service(match[2], match[1])):
            return [address]
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        fit = [address for address in addresses if not self._egress.refusal(address)]
        if not fit and addresses:
            raise _OutOfBounds(self._egress.refusal(addresses[0]))
        return fit


class _OutOfBounds(OSError):
    """A name leads to where no request may go."""


def _resolver(addresses: Callable[[str, int], Any]) -> Any:
    from aiohttp.abc import AbstractResolver, ResolveResult

    class Resolver(AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            return [
                ResolveResult(
                    hostname=host, host=address, port=port, proto=0, flags=socket.AI_NUMERICHOST,
                    family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                )
                for address in await addresses(host, port)
            ]  # fmt: skip

        async def close(self) -> None:
            """Nothing is kept."""

    return Resolver()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
