"""What a gateway decides without touching anything: routes, shares, limits, traces, heads, who gets a call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minik8s.api.errors import BadRequest, MethodNotAllowed
from minik8s.faas.gateway import routing, wire
from minik8s.faas.gateway.body import HIGH, Body
from minik8s.faas.gateway.fleet import Fleet, Load, Place, Replica, best
from minik8s.faas.gateway.records import KEPT, Record, Records, merged
from minik8s.faas.gateway.routing import Routes, Rule
from minik8s.faas.gateway.trace import begun, hop


def rule(name: str, path: str, method: str = "", created: str = "2024-01-01T00:00:00Z") -> Rule:
    return Rule("ns", name, f"fn-{name}", method, path, created)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/function/a/b", ("a", "b", "/")),
        ("/function/a/b/", ("a", "b", "/")),
        ("/function/a/b/c/d", ("a", "b", "/c/d")),
        ("/function/a/b//c", ("a", "b", "//c")),
        ("/function/a", None),
        ("/function//b", None),
        ("/functions/a/b", None),
    ],
)
def test_direct_paths(path: str, found: Any) -> None:
    assert routing.direct(path) == found


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/exact", "exact-get"),
        ("POST", "/exact", "exact-any"),
        ("GET", "/exact/", None),
        ("GET", "/shop", "shop"),
        ("GET", "/shop/", "shop"),
        ("GET", "/shop/a/b", "shop"),
        ("GET", "/shop/cart/1", "cart"),
        ("POST", "/shop/cart/1", "shop"),  # the closer one is for GET alone
        ("GET", "/shopping", None),
    ],
)
def test_triggers(method: str, path: str, name: str | None) -> None:
    routes = Routes(
        [
            rule("exact-any", "/exact"),
            rule("exact-get", "/exact", "GET"),
            rule("shop", "/shop/*"),
            rule("cart", "/shop/cart/*", "GET"),
        ]
    )
    found, _ = routes.find(method, path)
    assert (found.name if found else None) == name


def test_of_two_triggers_the_older_has_the_path() -> None:
    young, old = rule("a", "/x", "GET", "2024-02-01T00:00:00Z"), rule("b", "/x", "GET", "2024-01-01T00:00:00Z")
    routes = Routes([young, old])
    assert routes.find("GET", "/x")[0] is old
    assert routes.losers == {young: old}
    assert routes.find("PUT", "/x") == (None, ["GET"])


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5), st.floats(0, 1, exclude_max=True))
def test_a_draw_always_gives_a_revision_that_has_a_share(percents: list[int], draw: float) -> None:
    shares = [(f"r{number}", percent) for number, percent in enumerate(percents)]
    assert routing.chosen(shares, draw) in dict(shares)


def test_shares_are_kept_exactly() -> None:
    shares = [("a", 90), ("b", 10)]
    drawn = [routing.chosen(shares, number / 1000) for number in range(1000)]
    assert drawn.count("b") == 100
    assert routing.chosen([], 0.5) == ""


def test_room_is_what_all_replicas_take_and_the_queue() -> None:
    full = {"replicas": 2, "concurrency": 5, "queue": 3}
    assert not routing.crowded(12, **full)
    assert routing.crowded(13, **full)


def test_chains_end() -> None:
    assert routing.hop_refused(["a"], "b", ["b"]) == ""
    assert "does not declare" in routing.hop_refused(["a"], "b", [])
    assert "a -> b -> a" in routing.hop_refused(["a", "b"], "a", ["a"])
    long = [f"f{number}" for number in range(routing.MAX_DEPTH)]
    assert "more than 32" in routing.hop_refused(long, "g", ["g"])


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        (b"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", True),  # of a later version
        (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", False),
        (b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        (b"00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        (b"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        (b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        (b"", False),
    ],
)
def test_traceparent(header: bytes, known: bool) -> None:
    trace = begun(header, (7 << 64) + 5)
    assert trace.known is known
    assert (trace.id, trace.span) == ("0af7651916cd43dd8448eb211c80319c" if known else f"{7:032x}", f"{5:016x}")
    assert begun(trace.parent, 1).id == trace.id
    assert hop(trace, 9).id == trace.id
    assert hop(trace, 9).span == hop(trace, 9).call == f"{9:016x}"


HOST = (b"Host", b"h")


def test_a_head_is_split_into_what_goes_on_and_what_does_not() -> None:
    lines = [HOST, (b"X-A", b"1"), (b"Connection", b"close, X-Gone"), (b"x-gone", b"1"), (b"X-A", b"2"),
             (b"Content-Length", b"5")]  # fmt: skip
    asked = wire.read_head(b"POST", b"http://host/p?q", "1.1", lines)
    assert (asked.path, asked.query, asked.length) == ("/p", b"q", 5)
    assert asked.lines == [(b"X-A", b"1"), (b"X-A", b"2")]


@pytest.mark.parametrize(
    ("target", "version", "lines", "error"),
    [
        (b"/", "2.0", [HOST], BadRequest),
        (b"*", "1.1", [HOST], BadRequest),
        (b"/", "1.1", [HOST, HOST], BadRequest),
        (b"/", "1.1", [HOST, (b"Expect", b"tea")], BadRequest),
        (b"/", "1.1", [HOST, (b"X", b"y" * (wire.MAX_LINE + 1))], BadRequest),
        (b"/", "1.0", [(b"Transfer-Encoding", b"chunked")], BadRequest),
    ],
)
def test_heads_that_are_refused(target: bytes, version: str, lines: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        wire.read_head(b"GET", target, version, lines)
    with pytest.raises(MethodNotAllowed):
        wire.read_head(b"CONNECT", b"h:1", "1.1", [HOST])


def replica(name: str, *, own: bool = False, in_flight: int = 0) -> Replica:
    made = Replica(Place(f"ns/{name}", "127.0.0.1", 1, "n"), own=own, fresh=False)
    made.in_flight = in_flight
    return made


def test_the_least_busy_pod_gets_the_call_and_of_equals_that_of_this_node() -> None:
    far, near, busy = replica("far"), replica("near", own=True), replica("busy", own=True, in_flight=1)
    assert best([far, busy, near], 10, 0.0) is near
    near.in_flight = 1
    assert best([far, busy, near], 10, 0.0) is far
    far.in_flight = near.in_flight = busy.in_flight = 10
    assert best([far, busy, near], 10, 0.0) is None
    assert best([], 10, 0.0) is None


def test_a_pod_that_refuses_is_left_alone_ever_longer_until_it_answers() -> None:
    one = replica("a")
    waits = [one.refused(0.0) for _ in range(10)]
    assert waits[0] == pytest.approx(0.01)
    assert waits == sorted(waits)
    assert waits[-1] == 1.0
    assert best([one], 1, 0.5) is None
    one.answered("f-00001")
    assert best([one], 1, 0.0) is one


def test_a_pod_that_refused_is_tried_by_one_call_when_no_other_has_room() -> None:
    good, lost = replica("good"), replica("lost")
    lost.refused(0.0)
    assert best([lost, good], 2, 9.0) is good
    good.in_flight = 1
    assert best([lost, good], 2, 9.0) is good
    good.in_flight = 2
    assert best([lost, good], 2, 0.0) is None
    assert best([lost, good], 2, 9.0) is lost
    lost.in_flight = 1
    assert best([lost, good], 2, 9.0) is None
    lost.reached()
    assert best([lost, good], 2, 9.0) is lost


async def test_who_waits_follows_the_call_that_has_reached_a_pod() -> None:
    fleet, one = Fleet(asyncio.get_running_loop().time), replica("a")
    one.refused(-9.0)
    fleet.put(one)
    waits = [asyncio.create_task(fleet.wait(2)) for _ in range(2)]
    assert await waits[0] is one
    await asyncio.sleep(0)
    assert not waits[1].done()
    fleet.trust(one)
    assert await waits[1] is one


async def test_a_load_tells_how_much_is_in_flight_on_average() -> None:
    now = 0.0
    woken: list[float] = []
    load = Load(lambda: now, lambda: woken.append(now))
    load.enter()
    now = 1.0
    load.enter()
    now = 2.0
    assert load.usage() == (1.5, 0, 2)
    load.leave()
    now = 3.0
    assert load.usage() == (1.0, 0, 0)
    assert woken == [0.0]


async def test_places_are_given_in_order_and_none_is_lost() -> None:
    fleet = Fleet(asyncio.get_running_loop().time)
    waits = [asyncio.create_task(fleet.wait(1)) for _ in range(4)]
    await asyncio.sleep(0)
    assert fleet.waiting == 4
    one = replica("a")
    fleet.put(one)
    assert await waits[0] is one
    waits[1].cancel()
    fleet.give_back(one)
    waits[2].cancel()  # the place was given, and is not taken up
    await asyncio.gather(*waits[1:3], return_exceptions=True)
    assert await waits[3] is one
    assert one.in_flight == 1
    fleet.give_back(one)
    assert fleet.take(1) is one
    waiting = asyncio.create_task(fleet.wait(1))
    await asyncio.sleep(0)
    fleet.reroute()
    assert await waiting is None


async def test_a_body_holds_back_who_sends_faster_than_it_is_read() -> None:
    told: list[bool] = []
    body = Body(told.append)
    body.feed(b"x" * HIGH)
    assert told == []
    body.feed(b"y")
    assert told == [True]
    assert len(await body.read()) == HIGH + 1
    assert told == [True, False]
    body.end()
    assert await body.read() == b""
    broken = Body(told.append)
    broken.feed(b"half")
    broken.fail(ConnectionError("gone"))
    with pytest.raises(ConnectionError):
        await broken.read()


def record(number: int, function: str = "f") -> Record:
    return Record(str(number), float(number), function, "f-00001", 200, 0.1, False, "t", "", "")


def test_records_are_bounded_and_merged_newest_first() -> None:
    here, there = Records(), Records()
    for number in range(KEPT + 50):
        here.add("test-ns", record(number))
    there.add("test-ns", record(10_000))
    here.handed_over("test-ns", "f", "g")
    there.handed_over("test-ns", "f", "g")
    assert len(here.shown("test-ns", "f")["items"]) == KEPT
    whole = merged([here.shown("test-ns", "f"), there.shown("test-ns", "f")])
    assert len(whole["items"]) == KEPT
    assert [item["id"] for item in whole["items"][:2]] == ["10000", str(KEPT + 49)]
    assert whole["edges"] == [{"from": "f", "to": "g", "count": 2}]
    assert here.shown("test-ns", "g") == {"items": [], "edges": [{"from": "f", "to": "g", "count": 1}]}
