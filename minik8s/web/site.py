"""What the dashboard answers: its files, logging in and out, and doors to the API: requests, YAML, live, exec, history.

Defences, each by itself enough against the attack in brackets: the cookie is SameSite=Strict, all that changes a thing
needs a token that only a page of ours has read, and Origin must be our own (requests forged by other sites); nothing
but our own files is script or style, and answers of the API are never shown as pages (scripts smuggled into objects).
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import WSMsgType, web

from minik8s import __version__
from minik8s.api.errors import BadRequest, Forbidden, NotFound, StatusError, Unauthorized
from minik8s.log import get_logger
from minik8s.web import gate, yaml_text
from minik8s.web.history import METRICS, History
from minik8s.web.live import Live
from minik8s.web.sessions import Session, Sessions
from minik8s.web.settings import Settings
from minik8s.web.upstream import CHANNELS

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html", ".css": "text/css", ".svg": "image/svg+xml", ".js": "text/javascript",
    ".mjs": "text/javascript",
}  # fmt: skip
LARGEST = 4 * 2**20  # bytes of a request; the API server takes 3 MiB
PARTIAL = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json"
# `nonce` is for the terminal's own style sheet, which it makes when it opens.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SANDBOX = "default-src 'none'; frame-ancestors 'none'; sandbox"
SAFE = {
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip
log = get_logger("dashboard")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """`application()` is what a runner serves; `close` ends all sessions."""

    def __init__(self, settings: Settings, history: History) -> None:
        self._settings = settings
        self._history = history
        self._sessions = Sessions(settings.server, settings.ca)
        self._cookie = "__Host-minik8s" if settings.secure else "minik8s"

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._middleware], client_max_size=LARGEST)
        app.router.add_get("/", self._index)
        app.router.add_get("/static/{file:.+}", self._file)
        app.router.add_get("/session", self._who)
        app.router.add_post("/session", self._login)
        app.router.add_delete("/session", self._logout)
        app.router.add_get("/live", self._live)
        app.router.add_get("/exec/{namespace}/{pod}", self._exec)
        app.router.add_get("/history/{kind:nodes|pods}", self._show_history)
        app.router.add_get("/yaml/{path:.+}", self._read_yaml)
        app.router.add_put("/yaml/{path:.+}", self._write_yaml)
        app.router.add_route("*", "/{path:(api|apis|version)(/.*)?}", self._pass_on)
        app.on_shutdown.append(self._close)
        return app

    async def _close(self, app: web.Application) -> None:
        await self._sessions.close()

    # -- around everything

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._check_origin(request)
            answer = await handler(request)
        except StatusError as error:
            answer = _json(error.to_status(), status=error.code)
        except web.HTTPException as error:
            answer = web.Response(status=error.status, text=error.reason, headers=_allowed(error))
        if not answer.prepared:
            answer.headers.update(SAFE)
            answer.headers.setdefault("Content-Security-Policy", SANDBOX)
            answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    def _check_origin(self, request: web.Request) -> None:
        origin = request.headers.get("Origin")
        if origin and urlsplit(origin).netloc != request.host:
            raise Forbidden("this request comes from a page of another site")

    def _session(self, request: web.Request, *, changes: bool) -> Session:
        """The browser's session. Raises Unauthorized, and Forbidden for a change that no page of ours has made."""
        session = self._sessions.find(request.cookies.get(self._cookie, ""))
        given = request.headers.get("X-CSRF-Token", "")
        if changes and not hmac.compare_digest(given.encode(errors="surrogateescape"), session.csrf.encode()):
            raise Forbidden("the X-CSRF-Token is missing or wrong: load the page again")
        return session

    # -- files

    async def _index(self, request: web.Request) -> web.Response:
        nonce = secrets.token_urlsafe(16)
        page = (STATIC / "index.html").read_text().replace("{{nonce}}", nonce)
        policy = {"Content-Security-Policy": POLICY.format(nonce=nonce)}
        return web.Response(text=page, content_type="text/html", headers=policy)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        file = (STATIC / request.match_info["file"]).resolve()
        if not file.is_relative_to(STATIC) or file.suffix not in TYPES or not file.is_file():
            raise NotFound(f"there is no file {request.path}")
        headers = {"Cache-Control": "no-cache", "Content-Type": f"{TYPES[file.suffix]}; charset=utf-8"}
        return web.FileResponse(file, headers=headers | SAFE)

    # -- who is there

    async def _who(self, request: web.Request) -> web.Response:
        try:
            return self._tell(self._session(request, changes=False))
        except Unauthorized:
            return _json({"user": ""})  # no error: a page asks so before anybody has logged in

    async def _login(self, request: web.Request) -> web.Response:
        if request.content_type != "application/json":  # which no form of another site can send
            raise BadRequest("log in with a JSON body")
        given = _decoded(await request.read())
        session = await self._sessions.begin(str(given.get("credentials", "")))
        answer = self._tell(session)
        answer.set_cookie(
            self._cookie, session.id, httponly=True, samesite="Strict", secure=self._settings.secure, path="/"
        )
        log.info("logged in", user=session.user, address=request.remote)
        return answer

    async def _logout(self, request: web.Request) -> web.Response:
        await self._sessions.end(self._session(request, changes=True))
        answer = _json({})
        answer.del_cookie(self._cookie, path="/", secure=self._settings.secure, httponly=True, samesite="Strict")
        return answer

    def _tell(self, session: Session) -> web.Response:
        return _json({
            "user": session.user, "groups": session.groups, "csrf": session.csrf,
            "write": self._settings.write, "version": __version__,
        })  # fmt: skip

    # -- doors to the API

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        target = gate.target(request.path)
        gate.check(request.method, target, write=self._settings.write)
        session = self._session(request, changes=request.method not in gate.READING)
        query = list(request.query.items())
        if any(key in ("watch", "follow") for key, _ in query):
            raise BadRequest("what goes on is followed by /live")
        if target.is_result:
            return await self._download(request, session, target, query)
        answer = await session.upstream.request(
            request.method, target.path, query, body=await request.read(), content_type=_content_type(request),
            accept=PARTIAL if request.headers.get("X-Metadata-Only") else "application/json",
        )  # fmt: skip
        if target.is_text:
            return web.Response(body=answer, content_type="text/plain", charset="utf-8")
        if target.resource == "secrets":
            answer = msgspec.json.encode(gate.hidden(msgspec.json.decode(answer)))
        return web.Response(body=answer, content_type="application/json")

    async def _download(
        self, request: web.Request, session: Session, target: gate.Target, query: list[tuple[str, str]]
    ) -> web.StreamResponse:
        """However large. What a job has written is kept, never shown: it may be a page."""
        last = "results.zip" if ("format", "zip") in query else target.subresource.rpartition("/")[2]
        name = "".join(char for char in last if char.isascii() and (char.isalnum() or char in "._-"))
        async with session.upstream.stream(target.path, query, watch=False) as pieces:
            headers = {**SAFE, "Content-Type": "application/octet-stream", "Cache-Control": "no-store"}
            headers["Content-Security-Policy"] = SANDBOX
            headers["Content-Disposition"] = f'attachment; filename="{name or "result"}"'
            answer = web.StreamResponse(headers=headers)
            await answer.prepare(request)
            try:
                async for piece in pieces:
                    await answer.write(piece)
            except (StatusError, ConnectionError):  # half a file must not look like a whole one
                if request.transport is not None:
                    request.transport.abort()
        return answer

    async def _read_yaml(self, request: web.Request) -> web.Response:
        target = gate.target(request.match_info["path"])
        gate.check("GET", target, write=False)
        found = _decoded(await self._session(request, changes=False).upstream.request("GET", target.path))
        shown = gate.hidden(found) if target.resource == "secrets" else found
        return web.Response(text=await asyncio.to_thread(yaml_text.dump, shown), content_type="text/plain")

    async def _write_yaml(self, request: web.Request) -> web.Response:
        target = gate.target(request.match_info["path"])
        gate.check("PUT", target, write=self._settings.write)
        session = self._session(request, changes=True)
        body = msgspec.json.encode(await asyncio.to_thread(yaml_text.load, await request.text()))
        answer = await session.upstream.request("PUT", target.path, list(request.query.items()), body=body)
        return web.Response(text=await asyncio.to_thread(yaml_text.dump, _decoded(answer)), content_type="text/plain")

    async def _show_history(self, request: web.Request) -> web.Response:
        """`?namespace=&name=`; whoever may read those metrics from the API may read what they were."""
        session = self._session(request, changes=False)
        kind, namespace, name = (
            request.match_info["kind"],
            request.query.get("namespace", ""),
            request.query.get("name", ""),
        )
        asked = {
            "verb": "get" if name else "list",
            "group": "metrics.k8s.io",
            "resource": kind,
            "namespace": namespace,
            "name": name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        review = await session.upstream.request(
            "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body=msgspec.json.encode(body)
        )
        if not _decoded(review).get("status", {}).get("allowed"):
            raise Forbidden(f"{session.user} may not {asked['verb']} {kind} of {METRICS}")
        return _json(self._history.show(kind, namespace, name))

    # -- what lasts

    async def _live(self, request: web.Request) -> web.StreamResponse:
        session = self._session(request, changes=False)
        socket = await self._socket(request, session)
        try:
            async with asyncio.TaskGroup() as tasks:
                live = Live(socket, session.upstream, tasks)
                async for message in socket:
                    if message.type is WSMsgType.TEXT:
                        live.take(message.data)
                live.stop()
        except* BadRequest as group:
            await socket.close(code=1008, message=str(group.exceptions[0]).encode()[:120])
        except* ConnectionError:
            pass  # the page has gone in the midst of a message
        finally:
            session.sockets.discard(socket)
        return socket

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        """A terminal: `?container=`; bytes pass both ways as `v4.channel.k8s.io` has them."""
        if not self._settings.write:
            raise Forbidden("the dashboard is read-only; the master's setting --dashboard-write allows terminals")
        session = self._session(request, changes=False)
        pod = gate.target(f"/api/v1/namespaces/{request.match_info['namespace']}/pods/{request.match_info['pod']}")
        query = [
            ("container", request.query.get("container", "")),
            ("stdin", "true"),
            ("stdout", "true"),
            ("tty", "true"),
        ]
        query += [("command", word) for word in ("/bin/sh", "-c", "command -v bash >/dev/null && exec bash || exec sh")]
        socket = await self._socket(request, session, CHANNELS)
        try:
            async with session.upstream.channels(f"{pod.path}/exec", query) as container:
                await _bridge(socket, container)
        except StatusError as error:  # a browser cannot read why a WebSocket was refused, so it is told inside
            await socket.send_bytes(b"\x03" + msgspec.json.encode(error.to_status()))
        finally:
            session.sockets.discard(socket)
            await socket.close()
        return socket

    async def _socket(self, request: web.Request, session: Session, *protocols: str) -> web.WebSocketResponse:
        """Origin must be there and ours: a WebSocket carries the cookie, and no header of ours."""
        if "Origin" not in request.headers:
            raise Forbidden("a WebSocket of a page has an Origin")
        socket = web.WebSocketResponse(protocols=protocols, heartbeat=30, compress=False, max_msg_size=2**20)
        await socket.prepare(request)
        session.sockets.add(socket)
        return socket


async def _bridge(page: web.WebSocketResponse, container: Any) -> None:
    """Carry messages both ways until one side ends."""

    async def carry(source: Any, target: Any) -> None:
        async for message in source:
            if message.type is WSMsgType.BINARY:
                await target.send_bytes(message.data)

    ways = [asyncio.create_task(carry(page, container)), asyncio.create_task(carry(container, page))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


def _content_type(request: web.Request) -> str:
    known = (
        "application/json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/json-patch+json",
    )
    return request.content_type if request.content_type in known else known[0]


def _json(value: Any, *, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _allowed(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict)
    except msgspec.DecodeError:
        raise BadRequest("this is no JSON object") from None
