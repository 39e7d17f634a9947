"""What the supervisor itself is asked: `/-/ready`, `/-/metrics`, and, with the pod's token, `/-/revisions`."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from typing import Final

from minik8s.faas.runtime import http1
from minik8s.faas.runtime.connection import Connection
from minik8s.faas.runtime.fleet import Fleet
from minik8s.faas.runtime.http1 import Incoming
from minik8s.faas.runtime.settings import BadSettings, divided, read_settings

MAX_LOAD: Final = 66 * 2**20  # bytes of settings and archive
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")  # it becomes a folder's name
_PATH: Final = "/-/revisions"


class Control:
    """`token_sha256`: hex SHA-256 of what callers must bear; "" refuses everybody. `spent` is called when the pod is
    asked to take code that it must not."""

    def __init__(self, fleet: Fleet, token_sha256: str, spent: Callable[[], None]) -> None:
        self._fleet = fleet
        self._token = token_sha256
        self._spent = spent

    def refusal(self, request: Incoming) -> bytes | None:
        """The answer to who may not ask this; only the request's head is needed."""
        path = _path(request)
        if path in ("/-/ready", "/-/metrics"):
            return None
        if path != _PATH and not path.startswith(_PATH + "/"):
            return http1.error(404, "NotFound", f"there is no {path[:100]}; there are /-/ready, /-/metrics and {_PATH}")
        if not self._allowed(request):
            return http1.error(401, "Unauthorized", "the header Authorization must bear the pod's token: Bearer TOKEN")
        return None

    def answer(self, request: Incoming, connection: Connection) -> bytes | None:
        """None: it is answered later, by the fleet."""
        path = _path(request)
        if path == "/-/ready" and request.method in ("GET", "HEAD"):
            return http1.whole(200, [(b"content-type", b"text/plain")], b"ok\n", method=request.method)
        if path == "/-/metrics" and request.method == "GET":
            return http1.whole(200, [(b"content-type", b"text/plain; version=0.0.4")], self._metrics())
        return self._revisions(request, path.removeprefix(_PATH).strip("/"), connection)

    def _allowed(self, request: Incoming) -> bool:
        scheme, _, token = (request.header(b"authorization") or b"").partition(b" ")
        given = hashlib.sha256(token.strip()).hexdigest()
        return scheme.lower() == b"bearer" and bool(self._token) and hmac.compare_digest(given, self._token)

    def _revisions(self, request: Incoming, name: str, connection: Connection) -> bytes | None:
        if not name and request.method == "GET":
            return http1.json_answer(200, {"revisions": self._fleet.described()})
        if not name or request.method not in ("PUT", "DELETE"):
            return http1.error(405, "MethodNotAllowed", f"GET {_PATH}, PUT and DELETE {_PATH}/NAME")
        if request.method == "DELETE":
            return http1.error(404, "NotFound", f"{name} is not loaded") if not self._fleet.unload(name) else _done()
        return self._put(request.body, name, connection)

    def _put(self, body: bytes, name: str, connection: Connection) -> bytes | None:
        parts = divided(body)
        if parts is None:
            return http1.error(400, "BadRequest", "the body is: the settings' length (4 bytes), settings, archive")
        try:
            settings = read_settings(parts[0])
        except BadSettings as error:
            return http1.error(400, "BadRequest", str(error))
        if settings.revision != name or not _NAME.fullmatch(name):
            return http1.error(
                400, "BadRequest", f"revision: {settings.revision!r} is no name, or not the path's {name!r}"
            )
        if not self._fleet.admits(settings.tenant):
            self._spent()
            return http1.error(409, "Conflict", "this pod has had code of another function, and starts anew")
        self._fleet.load(settings, body, parts[1], connection)
        return None

    def _metrics(self) -> bytes:
        lines = []
        for name, field, kind in (
            ("function_runtime_calls_total", "calls", "counter"),
            ("function_runtime_in_flight", "inFlight", "gauge"),
            ("function_runtime_workers", "workers", "gauge"),
        ):
            lines.append(f"# TYPE {name} {kind}")
            lines += [f'{name}{{revision="{each["revision"]}"}} {each[field]}' for each in self._fleet.described()]
        return ("\n".join(lines) + "\n").encode()


def _path(request: Incoming) -> str:
    return request.target.partition(b"?")[0].decode("latin-1")


def _done() -> bytes:
    return http1.json_answer(200, {})
