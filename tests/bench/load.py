"""The load generator, a process of its own: `python -m tests.bench.load SPEC`, both the spec and the answer JSON.

A spec says `kind` and where the server is (`Agent.spec`); each kind below says what else. The answer is
`{"count", "seconds", "cpu" (seconds that the server used meanwhile), "latencies" (seconds), "failed"}`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from tests.bench.agent import cpu_seconds
from tests.bench.wire import Answers, Exchange, Others, Serial, Stream, config_map, context, request

Json = dict[str, Any]
P = TypeVar("P", bound=asyncio.Protocol)
EVENTS = 200  # per second, in the watch measure
WRITERS = 4
SETTLE = 0.5  # seconds until watches are open, and until the last events have come
CONNECTING = 60.0  # seconds that all clients may take to connect
TIMED = 10  # one watcher of so many is measured
STAMP = b'"sent":"'


def messages(spec: Json) -> Iterator[bytes]:
    """The requests of a spec: `get` a `path` again and again, or `create` ConfigMaps in `namespace`, or send
    `bodies`, each once, to `path`."""
    token = spec["token"]
    match spec["what"]:
        case "get":
            yield from itertools.repeat(request("GET", spec["path"], token, accept=spec.get("accept", "*/*")))
        case "create":
            path = f"/api/v1/namespaces/{spec['namespace']}/configmaps"
            marker = "0123456789"
            first, last = request("POST", path, token, config_map(marker)).split(marker.encode())
            for number in itertools.count(spec.get("first", 0)):
                yield b"%s%010d%s" % (first, number, last)
        case "bodies":
            for body in spec["bodies"]:
                yield request("POST", spec["path"], token, json.dumps(body).encode())


async def closed(spec: Json) -> Json:
    """`connections` clients, each with one request under way, for `seconds` or until there are no more requests."""
    answers, tls = Answers(), context(spec["ca"])
    deadline = time.perf_counter() + CONNECTING
    wanted = itertools.takewhile(lambda _: time.perf_counter() < deadline, messages(spec))
    exchanges = [await _connect(spec, tls, lambda: Exchange(wanted, answers)) for _ in range(spec["connections"])]
    cpu, begun = cpu_seconds(spec["pid"]), time.perf_counter()
    deadline = begun + spec.get("seconds", 600.0)
    for exchange in exchanges:
        exchange.next()
    await asyncio.wait([exchange.over for exchange in exchanges])
    return _answer(answers, time.perf_counter() - begun, cpu_seconds(spec["pid"]) - cpu)


async def serial(spec: Json) -> Json:
    """One client on a blocking socket, for `seconds`; says the `size` of the last body as well."""
    answers, client = Answers(), Serial(spec["port"], context(spec["ca"]))
    source = messages(spec)
    client.exchange(next(source), answers)  # the first one pays for what later ones find ready
    answers.seconds.clear()
    cpu, begun = cpu_seconds(spec["pid"]), time.perf_counter()
    size = 0
    while time.perf_counter() < begun + spec["seconds"]:
        size = len(client.exchange(next(source), answers))
    return {**_answer(answers, time.perf_counter() - begun, cpu_seconds(spec["pid"]) - cpu), "size": size}


async def watch(spec: Json) -> Json:
    """`connections` watchers of one namespace in which ConfigMaps change EVENTS times a second, for `seconds`.

    A latency is from the writing of a change to the arrival at one watcher. That is measured at each TIMED-th of them:
    to decrypt and read what all get would take as much of this machine as the server does. What the others get is taken
    off their sockets as it is; that nothing is missing is seen by its size.
    """
    tls, token, loop = context(spec["ca"]), spec["token"], asyncio.get_running_loop()
    path = f"/api/v1/namespaces/{spec['namespace']}/configmaps"
    answers, least = Answers(), 0

    def answered(data: bytes) -> None:
        if not data.startswith(b"HTTP/1.1 2") and data.startswith(b"HTTP/1.1"):
            answers.failed.append(data[9:200].decode(errors="replace"))

    def seen(data: bytes) -> None:
        nonlocal least
        least += len(data)
        now, at = time.monotonic_ns(), data.find(STAMP)
        while at >= 0:
            at += len(STAMP)
            answers.seconds.append((now - int(data[at : data.index(b'"', at)])) / 1e9)
            at = data.find(STAMP, at)

    makings = [request("POST", path, token, config_map(f"watched-{n}", {"sent": "0"})) for n in range(WRITERS)]
    writers = [await _connect(spec, tls, lambda m=m: Stream(m, answered)) for m in makings]  # type: ignore[misc]
    opening = request("GET", f"{path}?watch=true&resourceVersion={spec['after']}", token)
    timed, others = 0, Others()
    for number in range(spec["connections"]):
        if number % TIMED == 0:
            await _connect(spec, tls, lambda: Stream(opening, seen))
            timed += 1
        else:
            others.add(spec["port"], tls, opening)
    async with others:
        await asyncio.sleep(SETTLE)
        answers.seconds.clear()
        cpu, begun = cpu_seconds(spec["pid"]), loop.time()
        for number in range(int(spec["seconds"] * EVENTS)):
            await asyncio.sleep(begun + number / EVENTS - loop.time())
            at = number % WRITERS
            body = config_map(f"watched-{at}", {"sent": str(time.monotonic_ns())})
            writers[at].transport.write(request("PUT", f"{path}/watched-{at}", token, body))
        seconds = loop.time() - begun
        await asyncio.sleep(SETTLE)
        cpu = cpu_seconds(spec["pid"]) - cpu
    if any(size < least // timed for size in others.sizes):
        answers.failed.append("a watcher was not told of everything")
    result = _answer(answers, seconds, cpu)
    return {**result, "count": result["count"] // timed * spec["connections"]}


async def _connect(spec: Json, tls: ssl.SSLContext, make: Callable[[], P]) -> P:
    loop = asyncio.get_running_loop()
    _, made = await loop.create_connection(make, "127.0.0.1", spec["port"], ssl=tls, server_hostname="localhost")
    return made


def _answer(answers: Answers, seconds: float, cpu: float) -> Json:
    return {
        "count": len(answers.seconds), "seconds": seconds, "cpu": cpu, "latencies": answers.seconds,
        "failed": answers.failed[:5],
    }  # fmt: skip


KINDS = {"closed": closed, "serial": serial, "watch": watch}


def main() -> None:
    import uvloop

    spec = json.loads(sys.stdin.read())
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        json.dump(runner.run(KINDS[spec["kind"]](spec)), sys.stdout)


if __name__ == "__main__":
    main()
