"""HTTP tasks: a request with the task's parameters, whose answer is the result.

Parameters with `Method`, `Headers`, `QueryParameters` or `RequestBody` (the words of Step Functions' HTTP task) say how
to ask; the result is then `{StatusCode, Headers, ResponseBody}`. Any other parameters are POSTed as JSON, as to a
function, and the result is what the body holds. `Idempotency-Key` is the same when a task is repeated.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from minik8s.faas.egress import Egress
from minik8s.faas.workflow import errors
from minik8s.faas.workflow.data import Json
from minik8s.faas.workflow.errors import StateError
from minik8s.faas.workflow.execution import MAX_DATA

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

CONNECT_TIMEOUT = 10.0  # seconds
PARALLEL = 512  # connections at once, of all runs
FIELDS = frozenset(("Method", "Headers", "QueryParameters", "RequestBody"))
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
_SERVICE = re.compile(r"([a-z0-9-]+)\.([a-z0-9-]+)\.svc(\..+)?")
SOCKET = "States.Http.Socket"
Services = Callable[[str, str], str]  # (namespace, name) -> cluster address, "" if there is none


class HttpTasks:
    """`run()` owns the connections and is eternal. `service` resolves names of the cluster, NAME.NS.svc."""

    def __init__(self, egress: Egress, service: Services) -> None:
        self._egress = egress
        self._service = service
        self._session: aiohttp.ClientSession | None = None
        self._wanted = asyncio.Event()
        self._opened = asyncio.Event()

    async def run(self) -> None:
        """The client is read and made when the first task needs it: most clusters never do."""
        await self._wanted.wait()
        async with self._open() as self._session:
            self._opened.set()
            await asyncio.Event().wait()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[aiohttp.ClientSession]:
        import aiohttp

        connector = aiohttp.TCPConnector(limit=PARALLEL, resolver=_resolver(self.addresses))
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)  # the run's own timer does the rest
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            yield session

    async def perform(self, url: str, parameters: Any, key: str) -> Any:
        """Raises StateError: States.Http.StatusCode.NNN, States.Http.Socket and the like."""
        self._wanted.set()
        await self._opened.wait()
        host = urlsplit(url).hostname or ""
        if _is_address(host) and (why := self._egress.refusal(host)):  # the resolver is not asked about these
            raise StateError(errors.PERMISSIONS, why)
        asked = parameters if isinstance(parameters, dict) and FIELDS & parameters.keys() else None
        options: Json = _options(asked) if asked is not None else {"method": "POST", "data": _encode(parameters)}
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "minik8s-workflow"}
        options["headers"] = headers | options.get("headers", {}) | {"Idempotency-Key": key}
        status, answered, body = await self._send(url, options)
        if not 200 <= status < 300:
            text = body[:1000].decode(errors="replace")
            raise StateError(f"States.Http.StatusCode.{status}", text or f"{url} answered {status}")
        document = _document(body)
        if asked is None:
            return document
        return {"StatusCode": status, "Headers": answered, "ResponseBody": document}

    async def _send(self, url: str, options: Json) -> tuple[int, Json, bytes]:
        import aiohttp

        assert self._session is not None
        method = options.pop("method")
        try:
            async with self._session.request(method, url, allow_redirects=False, **options) as answer:
                body = await answer.content.read(MAX_DATA + 1)
                while len(body) <= MAX_DATA and (more := await answer.content.read(MAX_DATA + 1)):
                    body += more
                if len(body) > MAX_DATA:
                    raise StateError(errors.DATA_LIMIT, f"{url} answers with more than {MAX_DATA} bytes")
                return answer.status, {name.lower(): value for name, value in answer.headers.items()}, body
        except _Refused as error:
            raise StateError(errors.PERMISSIONS, str(error)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error.__cause__, _Refused):
                raise StateError(errors.PERMISSIONS, str(error.__cause__)) from None
            raise StateError(SOCKET, f"{url}: {error or type(error).__name__}") from None

    async def addresses(self, host: str, port: int) -> list[str]:
        """Where a host may be reached. OSError if there is no such place, `_Refused` if it is out of bounds."""
        match = _SERVICE.fullmatch(host)
        if match is not None and (address := self._service(match[2], match[1])):
            return [address]
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        fit = [address for address in addresses if not self._egress.refusal(address)]
        if not fit and addresses:
            raise _Refused(self._egress.refusal(addresses[0]))
        return fit


class _Refused(OSError):
    """A name leads to where no task may go."""


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


def _options(asked: Json) -> Json:
    """What the request is to be, for the client. StateError if it cannot be."""
    if unknown := asked.keys() - FIELDS:
        raise StateError(
            errors.RUNTIME, f"{', '.join(sorted(unknown))}: an HTTP task knows {', '.join(sorted(FIELDS))}"
        )
    method = asked.get("Method", "POST" if "RequestBody" in asked else "GET")
    if method not in METHODS:
        raise StateError(errors.RUNTIME, f"Method {method!r} is none of {', '.join(METHODS)}")
    options: Json = {"method": method, "headers": _texts(asked, "Headers")}
    if "QueryParameters" in asked:
        options["params"] = _texts(asked, "QueryParameters")
    if "RequestBody" in asked:
        options["data"] = _encode(asked["RequestBody"])
    return options


def _texts(asked: Json, field: str) -> dict[str, str]:
    found = asked.get(field) or {}
    if not isinstance(found, dict) or not all(isinstance(value, str | int | float) for value in found.values()):
        raise StateError(errors.RUNTIME, f"{field} must be an object of texts")
    return {name: str(value) for name, value in found.items()}


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _document(body: bytes) -> Any:
    """The JSON value of a body; its text where it is none."""
    try:
        return msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        return body.decode(errors="replace")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
