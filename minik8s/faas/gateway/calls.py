"""One request from its head to the last byte of its answer: found, held, sent, followed along a chain, answered.

A call waits as long as there is hope of a pod, for `HOLD` seconds at most. What is repeated is only what cannot have
run: a connection that was refused, a revision that was not loaded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from minik8s.api.errors import (
    InternalError,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
    ServiceUnavailable,
    StatusError,
    Timeout,
    TooManyRequests,
)
from minik8s.faas.gateway import routing, wire
from minik8s.faas.gateway.failures import InvokeError, LoadError, WorkerLost, refusal
from minik8s.faas.gateway.fleet import Fleet, Load, Replica
from minik8s.faas.gateway.inbound import Gone, Inbound
from minik8s.faas.gateway.loading import Loader
from minik8s.faas.gateway.records import Record, Records
from minik8s.faas.gateway.trace import Trace, begun, hop
from minik8s.faas.gateway.upstream import Link, Lost, Overdue
from minik8s.faas.gateway.view import Revision, Target, View
from minik8s.faas.gateway.wire import Answer, Asked, Sent
from minik8s.log import REPORT, get_logger

HOLD = 60.0  # seconds that a call waits for a pod
NOT_LOADED = b"not-loaded"
CLIENT_GONE = 499  # nginx' number for a call that nobody waited for
LATER_BODY = 1 << 20  # bytes of a call that is made later

log = get_logger("gateway")


class Seat(NamedTuple):
    """A call's place at a pod."""

    load: Load
    fleet: Fleet
    replica: Replica
    revision: Revision


class Note:
    """What becomes of a call, for its record."""

    __slots__ = ("cold", "error", "loaded", "revision", "status", "waited")

    def __init__(self) -> None:
        self.status = 0
        self.waited = self.loaded = 0.0  # seconds: for a place at a pod, and for the code to be there
        self.revision = self.error = ""
        self.cold = False


class Calls:
    """`wanted` is called when a call begins to wait. `later` hands a request to the queue of asynchronous calls and
    returns the body of an answer. `bits` gives as many random bits as one asks for, `draw` a number from [0, 1).
    `queue`: calls of a function that may wait beyond what all its replicas have in flight.
    """

    def __init__(
        self,
        view: View,
        loader: Loader,
        records: Records,
        wanted: Callable[[], None],
        *,
        later: Callable[[Target, Asked, str, bytes, Trace], Awaitable[bytes]],
        bits: Callable[[int], int],
        draw: Callable[[], float],
        queue: int = 100,
        hold: float = HOLD,
    ) -> None:
        self._view = view
        self._loader = loader
        self._records = records
        self._wanted = wanted
        self._later = later
        self._bits = bits
        self._draw = draw
        self._queue = queue
        self._hold = hold
        self._clock = asyncio.get_running_loop().time

    async def serve(self, asked: Asked, client: Inbound) -> None:
        """Answer a request."""
        trace = begun(asked.noted.get(b"traceparent", b""), self._bits(192))
        call = asked.noted.get(b"minik8s-call", b"")
        if call and wire.CALL_ID.fullmatch(call):
            trace = trace._replace(call=call.decode())
        try:
            if asked.path == "/healthz":
                client.write(wire.own_answer(200, b'{"status":"ok"}', asked))
                return
            target, path = self._target(asked)
            if asked.asynchronous:
                client.go_on(asked)
                await self._make_later(target, asked, path, trace, client)
            else:
                await self._chain(target, asked, path, trace, client)
        except StatusError as error:
            client.write(refusal(error, asked, trace.call))
        except Gone:
            raise
        except Exception as error:
            log.exception("a call failed", path=asked.path, remedy=REPORT)
            if client.began:  # half of an answer may have been sent
                client.abort()
            client.write(refusal(InternalError(f"an internal error occurred: {type(error).__name__}"), asked))

    # -- who is meant

    def _target(self, asked: Asked) -> tuple[Target, str]:
        """The function, and the path that it sees."""
        path = asked.path
        place = routing.direct(path)
        if place is None:
            rule, others = self._view.routes.find(asked.method.decode("latin-1"), path)
            if rule is None and others:
                allow = ", ".join(others)
                raise MethodNotAllowed(f"{path} is only for {allow}", details={"allow": allow})
            if rule is None:
                raise NotFound(
                    f"nothing is at {path}: no trigger has this path, and it is not /function/NAMESPACE/NAME"
                )
            place = rule.namespace, rule.function, path
        namespace, name, rest = place
        return self._named(namespace, name), rest

    def _named(self, namespace: str, name: str) -> Target:
        target = self._view.targets.get(f"{namespace}/{name}")
        if target is None:
            names = list(self._view.names(namespace))
            hint = routing.alike(name, names)
            if not names:
                hint = routing.alike(namespace, self._view.namespaces()) or "; the namespace has no functions"
            raise NotFound(f'function "{name}" not found in namespace "{namespace}"{hint}')
        return target

    # -- along a chain

    async def _chain(self, target: Target, asked: Asked, path: str, trace: Trace, client: Inbound) -> None:
        """Call a function, and those that it hands over to, until one answers for itself."""
        body = asked.body.take() if asked.body.ended else asked.body
        sent = wire.passed_on(asked, path, trace, body)
        chain = [target.name]
        while (handed := await self._hop(target, sent, chain, asked, client, trace)) is not None:
            name, params = handed
            if asked.noted.get(b"minik8s-invoke") == wire.HAND_BACK:
                marks = [(b"Minik8s-Invoke", name.encode()), (b"Minik8s-Call", trace.call.encode())]
                client.write(wire.own_answer(200, params, asked, more=marks))
                return
            chain.append(name)
            target = self._named(target.namespace, name)
            trace = hop(trace, self._bits(64))
            sent = wire.invoked(asked, trace, params)

    async def _hop(
        self, target: Target, sent: Sent, chain: list[str], asked: Asked, client: Inbound, trace: Trace
    ) -> tuple[str, bytes] | None:
        """One function's part: None if it has answered the client, else who is to go on, with which parameters."""
        if routing.crowded(
            target.busy, replicas=target.replicas, concurrency=target.concurrency, queue=self._queue
        ):  # fmt: skip
            raise TooManyRequests(f"{target.name} has {target.busy} calls under way already", retry_after=1)
        note, began, now = Note(), time.monotonic(), time.time()  # a loop's clock may be as coarse as milliseconds
        target.busy += 1
        try:
            return await self._perform(target, sent, chain, asked, client, trace, note)
        except StatusError as error:
            note.status, note.error = error.code, error.message
            raise
        except asyncio.CancelledError:
            note.status, note.error = note.status or CLIENT_GONE, "the client did not wait for the answer"
            raise
        finally:
            target.busy -= 1
            parent = chain[-2] if len(chain) > 1 else ""
            self._records.add(target.namespace, Record(
                trace.call, now, target.name, note.revision, note.status, time.monotonic() - began, note.cold, trace.id,
                parent, note.error, note.waited, note.loaded,
            ))  # fmt: skip

    async def _perform(
        self, target: Target, sent: Sent, chain: list[str], asked: Asked, client: Inbound, trace: Trace, note: Note
    ) -> tuple[str, bytes] | None:
        deadline = self._clock() + self._hold
        while True:
            seat = self._free_seat(target) or await self._waited(target, deadline, note)
            load, fleet, replica, revision = seat
            link: Link | None = None
            try:
                note.revision = revision.name
                _check_length(sent, revision)
                if revision.uid in replica.loaded:
                    link = replica.idle(revision.uid)
                if link is None:
                    link = await self._link(seat, sent, note, deadline)
                    if link is None:
                        continue
                if asked.expects:
                    client.go_on(asked)
                call = trace.call.encode()
                marks = b"%sMinik8s-Call: %s\r\n" % (revision.marks, call)
                answer = await link.call(sent, marks, revision.spec.timeoutSeconds, revision.spec.maxBodyBytes)
                if answer.runtime and self._not_loaded(answer, seat, sent, deadline):
                    note.cold = True
                    continue
                replica.answered(revision.uid)
                note.status = answer.status
                if answer.error:
                    note.error = answer.error.decode("latin-1")
                if answer.invoke:
                    return await self._handed_over(answer, revision, chain, target)
                if not _answered(answer, asked, client, call):
                    await _relay(answer, asked, client, call, note)
                return None
            except Lost as error:
                raise WorkerLost(f"{revision.name} did not answer to the end: {error}") from None
            except Overdue as error:
                raise Timeout(str(error)) from None
            finally:
                if link is not None:
                    if not isinstance(sent.body, bytes):
                        await link.stop_sending()
                    replica.done(revision.uid, link, self._clock())
                load.leave()
                fleet.give_back(replica)

    async def _handed_over(
        self, answer: Answer, revision: Revision, chain: list[str], target: Target
    ) -> tuple[str, bytes]:
        name = _plain(answer.invoke.decode("latin-1"))
        why = routing.hop_refused(chain, name, [_plain(each) for each in revision.spec.invokes])
        if why:
            raise InvokeError(why)
        try:
            params = await answer.body.all(revision.spec.maxBodyBytes)
        except ValueError:
            raise RequestEntityTooLarge(f"{target.name} hands more than it may take itself to {name}") from None
        self._records.handed_over(target.namespace, chain[-1], name)
        return name, params

    # -- at which pod

    def _choose(self, target: Target) -> Revision | None:
        """None while there is none, but may soon be one. Raises StatusError where that is not to be hoped."""
        if target.gone:
            raise NotFound(f'function "{target.name}" was deleted')
        shares = target.shares
        if not shares:
            if target.hopeless:
                raise LoadError(f"{target.name} has no revision that can be called: {target.reason}: {target.message}")
            return None
        name = shares[0][0] if len(shares) == 1 else routing.chosen(shares, self._draw())
        return self._view.revisions.get(f"{target.namespace}/{name}")

    def _free_seat(self, target: Target) -> Seat | None:
        """A place at a pod, if there is one at once; to be left."""
        revision = self._choose(target)
        if revision is None:
            return None
        load, fleet = self._view.load(revision), self._view.fleet(revision)
        replica = fleet.take(revision.spec.concurrency)
        if replica is None:
            return None
        load.enter()
        return Seat(load, fleet, replica, revision)

    async def _waited(self, target: Target, deadline: float, note: Note) -> Seat:
        since = time.monotonic()
        try:
            return await self._seat(target, deadline, note)
        finally:
            note.waited += time.monotonic() - since

    async def _seat(self, target: Target, deadline: float, note: Note) -> Seat:
        """A place at a pod, as soon as there is one; to be left."""
        while True:
            revision = self._choose(target)
            if revision is None:
                note.cold = True
                await self._until(target.changed(), target, deadline)
                continue
            load, fleet = self._view.load(revision), self._view.fleet(revision)
            note.cold = note.cold or not fleet.replicas
            replica = None
            load.enter()
            load.waiting += 1
            self._wanted()
            try:
                replica = await self._until(fleet.wait(revision.spec.concurrency), target, deadline)
            finally:
                load.waiting -= 1
                if replica is None:
                    load.leave()
            if replica is not None:
                return Seat(load, fleet, replica, revision)

    async def _until(self, wait: Awaitable[Replica | None], target: Target, deadline: float) -> Replica | None:
        try:
            async with asyncio.timeout_at(deadline):
                return await wait
        except TimeoutError:
            why = target.message or target.reason
            raise ServiceUnavailable(
                f"no pod of {target.name} was free within {self._hold:g} seconds{': ' + why if why else ''}",
                retry_after=5,
            ) from None

    async def _link(self, seat: Seat, sent: Sent, note: Note, deadline: float) -> Link | None:
        """A connection to the pod, with the code in it as far as we know; None: to be tried elsewhere, or again."""
        _, fleet, replica, revision = seat
        try:
            if revision.uid not in replica.loaded and (replica.fresh or not isinstance(sent.body, bytes)):
                note.cold, since = True, time.monotonic()
                try:
                    outcome = await self._loader.ensure(replica, revision)
                finally:
                    note.loaded += time.monotonic() - since
                if outcome.fault:
                    raise LoadError(f"{revision.name} cannot be loaded: {outcome.fault}")
            link = replica.idle(revision.uid) or await replica.connect()
            if replica.suspect_until:
                fleet.trust(replica)
            return link
        except OSError as error:
            fleet.avoid(replica)
            if self._clock() > deadline:
                raise ServiceUnavailable(f"{replica.place.key} takes no calls: {error}", retry_after=5) from None
            return None

    def _not_loaded(self, answer: Answer, seat: Seat, sent: Sent, deadline: float) -> bool:
        """Whether nothing has run because the revision was not there: it may be tried again."""
        if answer.runtime != NOT_LOADED:
            return False
        seat.replica.loaded.discard(seat.revision.uid)
        seat.replica.fresh = True
        if not isinstance(sent.body, bytes):
            raise ServiceUnavailable("the code was not loaded, and the body cannot be sent twice", retry_after=1)
        if self._clock() > deadline:
            raise ServiceUnavailable(f"{seat.replica.place.key} does not keep {seat.revision.name}", retry_after=5)
        return True

    # -- later

    async def _make_later(self, target: Target, asked: Asked, path: str, trace: Trace, client: Inbound) -> None:
        try:
            body = await asked.body.all(LATER_BODY)
        except ValueError:
            raise RequestEntityTooLarge(f"a call for later may have {LATER_BODY} bytes") from None
        answer = await self._later(target, asked, path, body, trace)
        client.write(wire.own_answer(202, answer, asked, more=[(b"Preference-Applied", b"respond-async")]))


def _check_length(sent: Sent, revision: Revision) -> None:
    limit = revision.spec.maxBodyBytes
    if sent.length is not None and sent.length > limit:
        raise RequestEntityTooLarge(f"the body has {sent.length} bytes; {revision.spec.function} takes {limit}")


def _answered(answer: Answer, asked: Asked, client: Inbound, call: bytes) -> bool:
    """The answer to the client, if all of it is here."""
    if not asked.body.ended:
        asked.keep_alive = False
    if not answer.body.ended:
        return False
    data = answer.body.take()
    length = answer.length if asked.method == b"HEAD" else len(data)
    client.write(wire.answer_head(answer, asked, call, length or 0) + data)
    return True


async def _relay(answer: Answer, asked: Asked, client: Inbound, call: bytes, note: Note) -> None:
    """The answer to the client as it comes, and as fast as it takes it."""
    body = answer.body
    chunked = answer.length is None and asked.modern
    if answer.length is None and not asked.modern:
        asked.keep_alive = False
    client.write(wire.answer_head(answer, asked, call, answer.length))
    try:
        while data := await body.read():
            client.write(wire.chunk(data) if chunked else data)
            await client.drained()
        if chunked:
            client.write(wire.LAST_CHUNK)
    except (Lost, Overdue) as error:
        note.error = f"the answer broke off: {error}"
        asked.keep_alive = False
        client.abort()


def _plain(name: str) -> str:
    """As names of objects are: functions of older dialects may be called otherwise in code."""
    return name.lower().replace("_", "-")
