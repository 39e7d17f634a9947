"""Code into pods: put there when a call needs it, or sooner by the gateway of the pod's own node.

That gateway also says of every new revision whether it can be loaded, by loading it: the verdict in its status. What
has no fault but cannot be tried now (no pod, no way to it) gets none.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import struct
from collections import OrderedDict
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from minik8s.api.errors import Conflict, NotFound, ServiceUnavailable, StatusError
from minik8s.api.kinds.functionrevision import LOAD_ERROR, LOADED, FunctionRevision
from minik8s.api.kinds.secret import Secret
from minik8s.client.base import Client
from minik8s.clock import Clock, rfc3339, system_clock
from minik8s.faas.gateway.fleet import Replica
from minik8s.faas.gateway.upstream import Lost, Overdue
from minik8s.faas.gateway.view import Revision, View
from minik8s.faas.gateway.wire import Sent
from minik8s.log import get_logger

KEY = ("kube-system", "function-runtime")  # the Secret whose `hmac` all control tokens come from
LOAD_TIMEOUT = 120.0  # seconds for a runtime to import a revision: it has a limit of its own, and says more
REMEMBERED = 24 * 2**20  # bytes of code that are kept here
LONGEST_FAULT = 8 * 1024  # characters of a traceback
AGAIN = 1.0  # seconds until what could not be done is tried again

log = get_logger("gateway")


class Outcome(NamedTuple):
    """Of putting a revision into a pod: `contract`, or a `fault` of the revision, or `trouble` that is not its own."""

    contract: str = ""
    fault: str = ""
    trouble: Exception | None = None


class Codes:
    """Archives by what is in them: those used last are kept."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0
        self._lock = asyncio.Lock()

    async def of(self, revision: Revision) -> bytes:
        """Raises StatusError."""
        sha256 = revision.spec.code.sha256
        async with self._lock:  # many pods want the same at once
            if sha256 in self._kept:
                self._kept.move_to_end(sha256)
                return self._kept[sha256]
            code = await self._client.transport.request("GET", _path(self._client, revision, "code"))
            self._kept[sha256] = code
            self._size += len(code)
            while self._size > REMEMBERED and len(self._kept) > 1:
                self._size -= len(self._kept.popitem(last=False)[1])
            return code


class Loader:
    """Puts revisions into pods, each once however many want it. `run` is eternal, and owns what is being put."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._codes = Codes(client)
        self._key = b""
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.Event().wait()

    async def ensure(self, replica: Replica, revision: Revision) -> Outcome:
        """Raises OSError when the pod cannot be reached, ServiceUnavailable when something else is missing."""
        task = replica.loading.get(revision.uid)
        if task is None:
            if self._tasks is None:
                raise ServiceUnavailable("the gateway is starting")
            task = self._tasks.create_task(self._put(replica, revision))
            replica.loading[revision.uid] = task
            task.add_done_callback(lambda _: replica.loading.pop(revision.uid, None))
        outcome: Outcome = await asyncio.shield(task)  # whoever waits may give up; others wait, too
        if outcome.trouble is not None:
            raise outcome.trouble
        return outcome

    async def _put(self, replica: Replica, revision: Revision) -> Outcome:
        try:
            code = await self._codes.of(revision)
            settings = await self._client.transport.request("GET", _path(self._client, revision, "settings"))
            body = struct.pack(">I", len(settings)) + settings + code
            status, answer = await self._send(replica, revision, body)
            if status == 401:  # the key is another one than we have read
                self._key = b""
                status, answer = await self._send(replica, revision, body)
        except StatusError as error:
            return Outcome(trouble=ServiceUnavailable(f"{revision.name} cannot be loaded now: {error.message}"))
        except OSError as error:
            return Outcome(trouble=error)
        except Lost as error:
            return Outcome(trouble=ConnectionError(str(error)))
        except Overdue:
            return Outcome(fault=f"the code was not imported within {LOAD_TIMEOUT:g} seconds")
        said = _document(answer)
        if status == 200:
            replica.loaded.add(revision.uid)
            return Outcome(contract=str(said.get("contract", "")))
        message = str(said.get("message") or answer[:500].decode(errors="replace"))
        if status in (413, 422):
            return Outcome(fault=message[-LONGEST_FAULT:])
        log.warning(
            "a pod did not take code", pod=replica.place.key, revision=revision.key, status=status, said=message
        )
        return Outcome(trouble=ConnectionError(f"{replica.place.key} answered {status}: {message}"))

    async def _send(self, replica: Replica, revision: Revision, body: bytes) -> tuple[int, bytes]:
        place = replica.place
        if not self._key:
            secret = await self._client.get(Secret, KEY[1], KEY[0])
            self._key = base64.b64decode(secret.data.get("hmac", ""))
        token = hmac.new(self._key, place.key.encode(), "sha256").hexdigest()
        lines = f"Host: {place.address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/octet-stream\r\n"
        target = f"/-/revisions/{revision.name}".encode()
        link, status = await replica.connect(), 0
        try:
            answer = await link.call(Sent(b"PUT", target, lines.encode(), body, len(body)), b"", LOAD_TIMEOUT)
            said, status = await answer.body.all(1 << 20), answer.status
            return status, said
        except ValueError:
            raise Lost("the answer is too long") from None
        finally:
            if status != 200:
                link.abort()
            # The runtime has not handed it to anybody yet: the first call of the revision may have it.
            replica.done(revision.uid, link, asyncio.get_running_loop().time())


def _path(client: Client, revision: Revision, subresource: str) -> str:
    base = client.resource(FunctionRevision).base_path(revision.namespace)
    return f"{base}/{revision.name}/{subresource}"


def _document(data: bytes) -> dict[str, Any]:
    with suppress(msgspec.DecodeError):
        found = msgspec.json.decode(data)
        if isinstance(found, dict):
            return found
    return {}


class Verdicts:
    """Loads what is new into the pods of this node: what nobody has tried yet, and what is to be called there."""

    def __init__(self, client: Client, view: View, loader: Loader, *, clock: Clock = system_clock) -> None:
        self._client = client
        self._view = view
        self._loader = loader
        self._clock = clock
        self._look = asyncio.Event()
        self._under_way: set[tuple[str, str]] = set()  # pod, revision
        self._judged: set[str] = set()  # revisions whose verdict is written, and may not be read yet
        self._told: dict[str, str] = {}  # why a revision cannot be tried, as its status says

    def moved(self) -> None:
        self._look.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                await self._look.wait()
                self._look.clear()
                for replica, revision in self._missing():
                    pair = (replica.place.key, revision.uid)
                    self._under_way.add(pair)
                    tasks.create_task(self._load(pair, replica, revision))

    def _missing(self) -> list[tuple[Replica, Revision]]:
        """What is to be put where, and is not on its way."""
        found = []
        judging = {revision for _, revision in self._under_way}
        for revision in self._view.revisions.values():
            fleet = self._view.fleets.get(revision.fleet)
            if fleet is None:
                continue
            if revision.verdict is None:
                if revision.uid not in self._judged | judging:
                    # one pod is enough to know; a busy one does
                    found += [(one, revision) for one in fleet.replicas.values() if one.own][:1]
                continue
            self._judged.discard(revision.uid)
            if revision.verdict and self._view.live(revision):
                for one in fleet.replicas.values():
                    known = revision.uid in one.loaded or revision.uid in one.spared
                    if one.own and not known and (one.place.key, revision.uid) not in self._under_way:
                        found.append((one, revision))
        return found

    async def _load(self, pair: tuple[str, str], replica: Replica, revision: Revision) -> None:
        try:
            outcome = await self._loader.ensure(replica, revision)
            if outcome.fault:
                replica.spared.add(revision.uid)
            if revision.verdict is None:
                await self._judge(revision, outcome)
        except (StatusError, OSError) as error:
            log.debug("not loaded yet", pod=replica.place.key, revision=revision.key, error=str(error))
            if isinstance(error, StatusError):
                await self._explain(revision, error)
                await asyncio.sleep(AGAIN)
            else:
                await asyncio.sleep(replica.refused(asyncio.get_running_loop().time()))
            self._look.set()
        finally:
            self._under_way.discard(pair)

    async def _explain(self, revision: Revision, error: StatusError) -> None:
        """Why there is no verdict: a key that a variable comes from is missing, say."""
        if revision.verdict is None and self._told.get(revision.uid) != error.message:
            self._told[revision.uid] = error.message
            with suppress(StatusError):
                await self._write(revision, "Unknown", "CannotLoad", error.message, "")

    async def _judge(self, revision: Revision, outcome: Outcome) -> None:
        self._told.pop(revision.uid, None)
        if outcome.fault:
            await self._write(revision, "False", LOAD_ERROR, outcome.fault, "")
        else:
            await self._write(revision, "True", LOADED, "", outcome.contract)
        self._judged.add(revision.uid)
        log.info("revision tried", revision=revision.key, ready=not outcome.fault, contract=outcome.contract)

    async def _write(self, revision: Revision, status: str, reason: str, message: str, contract: str) -> None:
        ready = {
            "type": "Ready", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": rfc3339(self._clock()),
        }  # fmt: skip
        patch = {"metadata": {"uid": revision.uid}, "status": {"conditions": [ready], "contract": contract}}
        with suppress(NotFound, Conflict):  # it has gone, and another one may have its name
            await self._client.patch(
                FunctionRevision, revision.name, revision.namespace, patch, subresource="status"
            )  # fmt: skip
