"""The pods of a function that gateways may call, who gets the next call, and who waits for one.

A fleet is the pods of one function and shape: all of them can hold all revisions of that shape. A call takes a place at
a pod and gives it back; where none is free it waits, in order, and is never refused for that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from minik8s.faas.gateway.upstream import Link, connect

IDLE = 30.0  # seconds after which an idle connection is closed: runtimes drop unused revisions after 60
SUSPECT = (0.01, 1.0)  # seconds that a pod which refuses connections is left alone: the first time, and at most
YOUNG = 1.0  # seconds for which a pod may be about to listen, and is tried again soon


class Place(NamedTuple):
    """Who a pod is; another address or shape is another pod."""

    key: str  # namespace/name
    address: str
    port: int
    node: str


class Replica:
    """One pod. `in_flight` counts this gateway's calls, `loaded` revisions that answered or were put there, by uid."""

    def __init__(self, place: Place, *, own: bool, fresh: bool) -> None:
        self.place = place
        self.own = own  # on this gateway's node
        self.fresh = fresh  # came while we watched: nothing is loaded that we have not seen being loaded
        self.since = 0.0  # when it came into its fleet
        self.in_flight = 0
        self.loaded: set[str] = set()
        self.spared: set[str] = set()  # what cannot be loaded there
        self.loading: dict[str, asyncio.Task[Any]] = {}  # what is being put there
        self.gone = False
        self.suspect_until = 0.0
        self._refusals = 0
        self._links: dict[str, deque[Link]] = {}
        self._active: set[Link] = set()

    # -- trouble

    def refused(self, now: float) -> float:
        """It takes no connections now; for how many seconds it is to be left alone."""
        first, longest = SUSPECT
        seconds = float(min(first * 2**self._refusals, longest))
        if not self.fresh or now - self.since >= YOUNG:
            self._refusals = min(self._refusals + 1, 16)
        self.suspect_until = now + seconds
        return seconds

    def answered(self, revision: str) -> None:
        """It has made a call."""
        self.loaded.add(revision)
        self.reached()

    def reached(self) -> None:
        """It takes connections."""
        self._refusals, self.suspect_until = 0, 0.0

    # -- connections

    def idle(self, revision: str) -> Link | None:
        """A connection for one call, to be ended with `done`, if one is open."""
        links = self._links.get(revision)
        while links:
            found = links.pop()
            if found.free:
                self._active.add(found)
                return found
        return None

    async def connect(self) -> Link:
        """A new one, as well. Raises OSError."""
        found = await connect(self.place.address, self.place.port)
        self._active.add(found)
        return found

    def done(self, revision: str, link: Link, now: float) -> None:
        """The call is over, however it ended."""
        self._active.discard(link)
        if not link.finish():
            return
        if self.gone:
            link.abort()
            return
        link.idle_since = now
        links = self._links.get(revision)
        if links is None:
            links = self._links[revision] = deque()
        links.append(link)

    def lose(self, why: str) -> None:
        """It is no more: what is under way there has no answer to wait for."""
        for link in list(self._active):
            link.lose(why)

    def tidy(self, before: float) -> None:
        """Close what has been idle since."""
        for revision, links in list(self._links.items()):
            while links and (links[0].closed or links[0].idle_since < before):
                links.popleft().abort()
            if not links:
                del self._links[revision]

    def close(self) -> None:
        """It is to be called no more; calls under way go on."""
        self.gone = True
        for links in self._links.values():
            for link in links:
                link.abort()
        self._links.clear()


def best(replicas: Iterable[Replica], limit: int, now: float) -> Replica | None:
    """Who gets the next call: the least busy of those with room, on this node rather than elsewhere. A pod that took no
    connection last time comes after all others, and gets one call at a time: that of a lost node may take seconds to
    refuse it, and nobody else is to wait there. Pure."""
    found: Replica | None = None
    doubtful: Replica | None = None
    least = limit
    for one in replicas:
        if one.suspect_until:
            if one.suspect_until <= now and not one.in_flight:
                doubtful = doubtful or one
        elif one.in_flight < least or (found is not None and one.in_flight == least and one.own > found.own):
            found, least = one, one.in_flight
    return found or doubtful


class Usage(NamedTuple):
    """Since it was asked last. `concurrency`: calls in flight or waiting, on average over the time."""

    concurrency: float
    waiting: int
    requests: int


class Load:
    """How much of a function is wanted, in pods of one shape: what the autoscaler goes by. `woken` is called when the
    first call of many comes."""

    def __init__(self, clock: Callable[[], float], woken: Callable[[], None]) -> None:
        self.busy = 0
        self.waiting = 0
        self._clock = clock
        self._woken = woken
        self._requests = 0
        self._area = 0.0
        self._since = self._asked = clock()

    def enter(self) -> None:
        self._count(1)
        self._requests += 1
        if self.busy == 1:
            self._woken()

    def leave(self) -> None:
        self._count(-1)

    def _count(self, by: int) -> None:
        now = self._clock()
        self._area += self.busy * (now - self._since)
        self._since = now
        self.busy += by

    @property
    def idle(self) -> bool:
        return not (self.busy or self._requests)

    def usage(self) -> Usage:
        self._count(0)
        passed = self._since - self._asked
        average = self._area / passed if passed > 0 else float(self.busy)
        requests, self._requests = self._requests, 0
        self._area, self._asked = 0.0, self._since
        return Usage(average, self.waiting, requests)


class Fleet:
    """`clock` is the loop's."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.replicas: dict[str, Replica] = {}
        self._clock = clock
        self._waiting: deque[tuple[asyncio.Future[Replica | None], int]] = deque()
        self._retry: asyncio.TimerHandle | None = None

    # -- places

    def take(self, limit: int) -> Replica | None:
        """A place at a pod, to be given back, if one is free and nobody waits for it; at each pod `limit` calls may be
        in flight."""
        replica = None if self._waiting else best(self.replicas.values(), limit, self._clock())
        if replica is not None:
            replica.in_flight += 1
        return replica

    async def wait(self, limit: int) -> Replica | None:
        """A place as soon as there is one. None: things have changed, the call is to ask again who it is for."""
        future: asyncio.Future[Replica | None] = asyncio.get_running_loop().create_future()
        entry = (future, limit)
        self._waiting.append(entry)
        self._grant()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and (replica := future.result()) is not None:
                self.give_back(replica)
            elif entry in self._waiting:
                self._waiting.remove(entry)
            raise

    def give_back(self, replica: Replica) -> None:
        replica.in_flight -= 1
        if self._waiting:
            self._grant()

    def refused(self, replica: Replica) -> None:
        """A pod took no connection: its place is given back, and not to be had for a moment."""
        self.avoid(replica)
        self.give_back(replica)

    def avoid(self, replica: Replica) -> float:
        """For how many seconds a pod that took no connection gets no calls."""
        return replica.refused(self._clock())

    def trust(self, replica: Replica) -> None:
        """A pod takes connections again: those who wait may go there, too."""
        replica.reached()
        self._grant()

    def _grant(self) -> None:
        while self._waiting:
            future, limit = self._waiting[0]
            if future.done():
                self._waiting.popleft()
                continue
            replica = best(self.replicas.values(), limit, self._clock())
            if replica is None:
                self._look_again()
                return
            self._waiting.popleft()
            replica.in_flight += 1
            future.set_result(replica)

    def _look_again(self) -> None:
        """When the first of the pods that are left alone may be tried again."""
        now = self._clock()
        due = [one.suspect_until for one in self.replicas.values() if one.suspect_until > now]
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if due and self._waiting:
            self._retry = asyncio.get_running_loop().call_later(min(due) - now + 0.001, self._grant)

    # -- pods

    def put(self, replica: Replica) -> None:
        self.replicas[replica.place.key] = replica
        replica.since = self._clock()
        self._grant()

    def drop(self, key: str) -> Replica | None:
        replica = self.replicas.pop(key, None)
        if replica is not None:
            replica.close()
        return replica

    def reroute(self) -> None:
        """All who wait ask again."""
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_result(None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)
