"""The load generator for functions, a process of its own: `python -m tests.bench.calls SPEC`, spec and answer in JSON.

`{"url", "count", "clients"}`: so many calls by so many clients, each with one under way. It shares the machine with
what it measures, so it is lean: bytes on raw uvloop connections; of an answer the first and the last bytes are read.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from tests.bench.wire import Answers, Exchange

BODY = b'{"x": 1}'
ECHO = b'\r\n\r\n{"x":1}'  # how answers end


class Echoed(Exchange):
    """An answer that is all there is the usual case."""

    def data_received(self, data: bytes) -> None:
        if data.endswith(ECHO) and data.startswith(b"HTTP/1.1 200 ") and not self._rest:
            self._answers.seconds.append(time.perf_counter() - self._sent)
            self.next()
        else:
            super().data_received(data)


async def load(spec: dict[str, Any]) -> dict[str, Any]:
    url, answers = urlsplit(spec["url"]), Answers()
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\nContent-Length: "
    message = f"{head}{len(BODY)}\r\n\r\n".encode() + BODY
    wanted = itertools.repeat(message, spec["count"])
    loop = asyncio.get_running_loop()
    exchanges = []
    for _ in range(spec["clients"]):
        _, exchange = await loop.create_connection(lambda: Echoed(wanted, answers), url.hostname, url.port)
        exchanges.append(exchange)
    for exchange in exchanges:
        exchange.next()
    await asyncio.wait([exchange.over for exchange in exchanges])
    return {"latencies": answers.seconds, "failed": answers.failed}


if __name__ == "__main__":
    try:
        import uvloop

        runner = uvloop.run
    except ImportError:
        runner = asyncio.run
    json.dump(runner(load(json.loads(sys.argv[1]))), sys.stdout)
