"""What a page follows: listed once, watched from there, gone on with after a loss, listed anew when too old."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from minik8s.api.errors import BadRequest, Forbidden, ServiceUnavailable, StatusError
from minik8s.web import live as module
from minik8s.web.live import Live


class Api:
    """An upstream that answers as told: lists by `pages`, each watch or log by the next of `streams`."""

    def __init__(self, pages: list[Any], streams: list[list[Any]]) -> None:
        self.pages, self.streams = pages, streams
        self.asked: list[tuple[str, dict[str, str]]] = []

    async def request(self, method: str, path: str, query: Any = ()) -> bytes:
        self.asked.append(("LIST", dict(query)))
        page = self.pages.pop(0)
        if isinstance(page, StatusError):
            raise page
        return json.dumps(page).encode()

    @asynccontextmanager
    async def stream(self, path: str, query: Any, *, watch: bool) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.append(("WATCH" if watch else "LOG", dict(query)))
        parts = self.streams.pop(0) if self.streams else None

        async def pieces() -> AsyncIterator[bytes]:
            if parts is None:
                await asyncio.Event().wait()
            for part in parts or ():
                if isinstance(part, StatusError):
                    raise part
                yield part

        yield pieces()


class Page:
    def __init__(self) -> None:
        self.said: asyncio.Queue[Any] = asyncio.Queue()

    async def send_str(self, data: str) -> None:
        self.said.put_nowait(json.loads(data))

    async def hears(self, count: int) -> list[Any]:
        async with asyncio.timeout(10):
            return [await self.said.get() for _ in range(count)]


@asynccontextmanager
async def following(api: Api, **request: Any) -> AsyncIterator[Page]:
    page = Page()
    async with asyncio.TaskGroup() as tasks:
        live = Live(page, api, tasks)  # type: ignore[arg-type]
        live.take(json.dumps({"id": "x", "path": "/api/v1/pods", **request}))
        yield page
        live.stop()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with _quick(monkeypatch):
        yield


@contextmanager
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "REFUSED_PAUSE", 0.01)
    monkeypatch.setattr(module, "backoff", lambda *_: iter(lambda: 0.01, None))
    yield


def page_of(version: str, *names: str, more: str = "") -> Any:
    return {
        "metadata": {"resourceVersion": version, "continue": more},
        "items": [{"metadata": {"name": n}} for n in names],
    }


def frame(type: str, version: str, **more: Any) -> bytes:
    return json.dumps({"type": type, "object": {"metadata": {"resourceVersion": version}, **more}}).encode() + b"\n"


async def test_pages_then_events_from_the_first_page_on() -> None:
    api = Api(
        [page_of("5", "a", more="m"), page_of("7", "b")],
        [[frame("ADDED", "8"), frame("BOOKMARK", "9")[:20], frame("BOOKMARK", "9")[20:]]],
    )
    async with following(api, query={"fieldSelector": "f"}) as page:
        first, second, added, bookmark = await page.hears(4)
    assert (first[1:3], second[1:3]) == (["PAGE", True], ["PAGE", False])
    assert [item["metadata"]["name"] for item in (*first[3]["items"], *second[3]["items"])] == ["a", "b"]
    assert (added[1], added[2][0]["type"], bookmark[2][0]["type"]) == ("EVENTS", "ADDED", "BOOKMARK")
    assert api.asked[1][1] == {"fieldSelector": "f", "limit": "500", "continue": "m"}
    assert api.asked[2][0] == "WATCH"
    assert api.asked[2][1]["resourceVersion"] == "5"


async def test_a_watch_that_breaks_goes_on_after_what_was_seen() -> None:
    api = Api([page_of("5")], [[frame("ADDED", "8"), ServiceUnavailable("cut")], [], [frame("MODIFIED", "11")]])
    async with following(api) as page:
        _, added, error, modified = await page.hears(4)
    assert (added[1], error[1], error[2]["message"], modified[2][0]["type"]) == ("EVENTS", "ERROR", "cut", "MODIFIED")
    assert [asked[1].get("resourceVersion") for asked in api.asked[:4]] == [None, "5", "8", "8"]


async def test_a_page_that_comes_back_goes_on_without_a_list() -> None:
    api = Api([], [[frame("ADDED", "8")]])
    async with following(api, version="6") as page:
        await page.hears(1)
    assert api.asked[0][0] == "WATCH"
    assert api.asked[0][1]["resourceVersion"] == "6"


async def test_what_is_too_old_is_listed_anew() -> None:
    gone = json.dumps(
        {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "old"}}
    )
    api = Api([page_of("20", "a")], [[gone.encode() + b"\n"], [frame("ADDED", "21")]])
    async with following(api, version="6") as page:
        listed, added = await page.hears(2)
    assert (listed[1:3], added[1]) == (["PAGE", True], "EVENTS")


async def test_what_is_refused_is_told_and_asked_for_again() -> None:
    api = Api([Forbidden("no"), page_of("5", "a")], [])
    async with following(api) as page:
        error, listed = await page.hears(2)
    assert (error[1], error[2]["reason"], listed[1]) == ("ERROR", "Forbidden", "PAGE")


async def test_secrets_come_without_values() -> None:
    secret = {"metadata": {"name": "s"}, "data": {"k": "dg=="}}
    listed = {"metadata": {"resourceVersion": "5"}, "items": [secret]}
    api = Api([listed], [[frame("ADDED", "6", data={"k": "dg=="})]])
    async with following(api, path="/api/v1/secrets") as page:
        first, event = await page.hears(2)
    assert first[3]["items"][0]["data"] == {"k": ""} == event[2][0]["object"]["data"]


async def test_a_log_is_text_whatever_its_bytes_and_ends() -> None:
    api = Api([], [["é\n".encode()[:1], "é\n".encode()[1:], b"\xff\n"]])
    async with following(api, path="/api/v1/namespaces/a/pods/b/log", log=True) as page:
        *parts, end = await page.hears(4)
    assert ("".join(part[2] for part in parts), end) == ("é\n\ufffd\n", ["x", "END"])


@pytest.mark.parametrize("path", ["/api/v1/namespaces/a/pods/b", "/metrics", "/api/v1/nodes/n/proxy/logs"])
async def test_only_logs_are_followed_as_logs(path: str) -> None:
    async with following(Api([], []), path=path, log=True) as page:
        assert (await page.hears(1))[0][1] == "ERROR"


async def test_nonsense_and_too_much_are_refused() -> None:
    async with asyncio.TaskGroup() as tasks:
        live = Live(Page(), Api([], []), tasks)  # type: ignore[arg-type]
        for nonsense in ("", "[]", '{"path": 1}', "{"):
            with pytest.raises(BadRequest):
                live.take(nonsense)
        for n in range(module.MOST):
            live.take(json.dumps({"id": str(n), "path": "/api/v1/pods", "version": "1"}))
        with pytest.raises(BadRequest, match="64"):
            live.take('{"id": "more", "path": "/api/v1/pods"}')
        live.take('{"id": "0", "stop": true}')
        live.take('{"id": "more", "path": "/api/v1/pods", "version": "1"}')
        live.stop()
