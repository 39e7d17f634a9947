"""A watch: what is there now (if wanted), then every change after a revision, in order, without gap or repetition."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from minik8s.api.errors import BadRequest, Invalid, ServiceUnavailable, StatusError, forbidden
from minik8s.apiserver.request import Frames, Push
from minik8s.apiserver.routes import is_true
from minik8s.apiserver.views import View, Views, bookmark, error_frame
from minik8s.store.base import Change, Record
from minik8s.store.watch_cache import WatchCache
from minik8s.store.watcher import Watcher

BOOKMARK_INTERVAL = 60.0  # seconds between signs of life, as Kubernetes'
SHORTEST, LONGEST = (
    1800.0,
    3600.0,
)  # seconds of a watch whose client does not say; spread, so that not all return at once
INITIAL_BATCH = 256  # objects that are sent at once at the start


class WatchOptions(NamedTuple):
    after: int | None  # None: start with what is there now
    bookmarks: bool
    initial_end: bool  # mark the end of the initial objects
    timeout: float


def parse_version(text: str, *, name: str = "resourceVersion") -> int:
    """A revision as clients send it; they get it from the server, so anything else is a mistake."""
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadRequest(f'invalid {name}: "{text[:40]}" is not a resource version')
    return int(text)


def parse_options(query: Mapping[str, str], rng: random.Random) -> WatchOptions:
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    initial = query.get("sendInitialEvents")
    if initial is not None and match != "NotOlderThan":
        raise Invalid("ListOptions", "", [forbidden("resourceVersionMatch", _NEEDS_MATCH)], group="meta.k8s.io")
    if initial is None and match:
        raise Invalid("ListOptions", "", [forbidden("resourceVersionMatch", _NO_MATCH)], group="meta.k8s.io")
    bookmarks = is_true(query.get("allowWatchBookmarks"))
    from_start = is_true(initial) or (initial is None and version in ("", "0"))
    try:
        timeout = float(query.get("timeoutSeconds") or 0)
    except ValueError:
        timeout = -1.0
    if timeout < 0:
        raise BadRequest(f'timeoutSeconds must be a positive number, not "{query["timeoutSeconds"][:40]}"')
    timeout = timeout if timeout > 0 else rng.uniform(SHORTEST, LONGEST)
    after = None if from_start else parse_version(version or "0")
    return WatchOptions(after, bookmarks, is_true(initial) and bookmarks, min(timeout, 86400.0))


_NEEDS_MATCH = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
_NO_MATCH = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"


class Watches:
    """Opens watches on the cache. `stream` yields batches of frames and frees everything when it is closed.

    A watch that has sent all there was costs no task's turn for a change: whoever publishes it pushes bytes that were
    made once into each connection, and the stream goes on only for who does not keep up, and for bookmarks.
    """

    def __init__(self, cache: WatchCache, views: Views, rng: random.Random | None = None) -> None:
        self._cache = cache
        self._views = views
        self.rng = rng or random.Random()
        self.open = 0

    async def stream(
        self, prefix: str, folder: str, seen: View, options: WatchOptions, push: Push | None = None
    ) -> Frames:
        """`prefix` is a folder or one key; `folder` the folder to list for the initial objects."""
        if options.after is not None and options.after > self._cache.revision:
            await self._cache.wait(options.after)  # too far ahead: an error before the stream has begun
        return self._run(prefix, folder, seen, options, push)

    async def _run(self, prefix: str, folder: str, seen: View, options: WatchOptions, push: Push | None) -> Frames:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + options.timeout
        self.open += 1
        watcher: Watcher | None = None
        timer: asyncio.TimerHandle | None = None
        try:
            initial: Sequence[Record] = ()
            after = options.after
            if after is None:
                records, after = self._cache.list(folder)
                initial = [r for r in records if prefix in (folder, r.key) and _selected(seen, r)]
            watcher = await self._cache.watch(prefix, after)
            watcher.direct = self._directly(seen, push) if push is not None else None
            for start in range(0, len(initial), INITIAL_BATCH):
                yield [self._views.added(seen, record) for record in initial[start : start + INITIAL_BATCH]]
            if options.initial_end:
                yield [bookmark(seen, after, initial_end=True)]
            timer = loop.call_later(min(options.timeout, BOOKMARK_INTERVAL), watcher.nudge)
            while (left := deadline - loop.time()) > 0:
                if changes := await watcher.next():
                    if batch := self._render(seen, changes):
                        yield batch
                    continue
                timer = loop.call_later(min(left, BOOKMARK_INTERVAL), watcher.nudge)
                if options.bookmarks and watcher.idle:
                    yield [bookmark(seen, self._cache.revision)]
        except ServiceUnavailable:
            return  # the server stops: clients see the end of the stream and try again
        except StatusError as error:
            yield [error_frame(error.to_status())]
        finally:
            self.open -= 1
            if timer is not None:
                timer.cancel()
            if watcher is not None:
                watcher.close()

    def _directly(self, seen: View, push: Push) -> Callable[[Sequence[Change]], bool]:
        chunk = self._views.chunk
        return lambda changes: not (made := chunk(seen, changes)) or push(made)

    def _render(self, seen: View, changes: Sequence[Change]) -> list[bytes]:
        frame = self._views.frame
        return [made for change in changes if (made := frame(seen, change)) is not None]


def _selected(seen: View, record: Record) -> bool:
    return seen.selection is None or seen.selection.matches(record.value)
