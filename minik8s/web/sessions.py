"""Who is logged in: sessions in this process's memory, found by a random cookie; a restart logs everybody out."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from minik8s.api.errors import Unauthorized
from minik8s.web import login as logins
from minik8s.web.upstream import Upstream

LIFE = 12 * 3600.0  # seconds after the login
IDLE = 2 * 3600.0  # seconds without a request
MOST = 200  # sessions; the one that was idle for longest makes room
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


@dataclass(eq=False)
class Session:
    id: str
    csrf: str  # must come back in a header with all that is not read
    user: str
    groups: tuple[str, ...]
    upstream: Upstream
    made: float
    used: float
    sockets: set[Any] = field(default_factory=set)  # WebSockets that end with the session

    async def close(self) -> None:
        for socket in tuple(self.sockets):
            await socket.close(code=4001, message=b"logged out")
        await self.upstream.close()


class Sessions:
    def __init__(self, server: str, ca: str) -> None:
        self._server, self._ca = server, ca
        self._known: dict[str, Session] = {}

    async def begin(self, text: str) -> Session:
        """Log in with a token or kubeconfig. Raises Unauthorized if the API server does not know who that is."""
        upstream = Upstream(self._server, self._ca, await asyncio.to_thread(logins.read, text))
        try:
            body = b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'
            answer = msgspec.json.decode(await upstream.request("POST", REVIEW, body=body))
            info = answer["status"]["userInfo"]
            if "system:authenticated" not in info.get("groups", ()):
                raise Unauthorized("the API server does not know these credentials")
        except BaseException:
            await upstream.close()
            raise
        now = time.monotonic()
        made = Session(
            secrets.token_urlsafe(32),
            secrets.token_urlsafe(32),
            info["username"],
            tuple(info["groups"]),
            upstream,
            now,
            now,
        )
        await self._sweep(now)
        self._known[made.id] = made
        return made

    def find(self, id: str) -> Session:
        """Raises Unauthorized."""
        session, now = self._known.get(id), time.monotonic()
        if session is None or _over(session, now):
            raise Unauthorized("log in first")
        session.used = now
        return session

    async def end(self, session: Session) -> None:
        self._known.pop(session.id, None)
        await session.close()

    async def close(self) -> None:
        for session in tuple(self._known.values()):
            await self.end(session)

    async def _sweep(self, now: float) -> None:
        for session in [one for one in self._known.values() if _over(one, now)]:
            await self.end(session)
        while len(self._known) >= MOST:
            await self.end(min(self._known.values(), key=lambda one: one.used))


def _over(session: Session, now: float) -> bool:
    return now > session.made + LIFE or (now > session.used + IDLE and not session.sockets)
