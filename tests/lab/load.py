"""load.py ADDRESS PORT RATE [PATH [SECONDS]]: ask for PATH (/) RATE times a second, each time on a new connection,
until stdin ends, for ten minutes at most. What has no answer after SECONDS (5) has failed; when none of the first 20
had a good one it ends as well: whoever is there is not whom a test means.

An open loop: a request that takes long does not keep the next one back, as with many clients. Prints a line when it
is under way, and at the end one JSON object:
{"count": …, "answers": {text: [first, last, count]}, "failures": [[when, seconds, why]], "slow": [[when, seconds]]}
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

SLOW = 0.5  # seconds
UNDER_WAY = 20  # requests
LONGEST = 5.0
ENOUGH = 600.0  # seconds


async def ask(address: str, port: int, path: str, answers: dict[str, list[float]]) -> None:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(b"GET %s HTTP/1.0\r\n\r\n" % path.encode())
        answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.decode().partition("\r\n\r\n")
    if " 200 " not in head.split("\r\n")[0]:
        raise OSError(f"answered {answer[:300]!r}")
    now = time.time()
    known = answers.setdefault(body.strip(), [now, now, 0])
    known[1:] = [now, known[2] + 1]


async def main(address: str, port: int, rate: float, path: str = "/", longest: float = LONGEST) -> None:
    loop = asyncio.get_running_loop()
    told_to_end = loop.run_in_executor(None, sys.stdin.read)
    answers: dict[str, list[float]] = {}
    failures: list[tuple[float, float, str]] = []
    slow: list[tuple[float, float]] = []
    count = 0

    async def one() -> None:
        began = time.time()
        try:
            async with asyncio.timeout(longest):
                await ask(address, port, path, answers)
        except (OSError, TimeoutError) as error:
            failures.append((began, time.time() - began, repr(error)))
        else:
            if (took := time.time() - began) > SLOW:
                slow.append((began, took))

    begun = loop.time()
    async with asyncio.TaskGroup() as tasks:
        while not told_to_end.done() and loop.time() < begun + ENOUGH and (answers or len(failures) < UNDER_WAY):
            tasks.create_task(one())
            count += 1
            if count == UNDER_WAY:
                print("under way", flush=True)
            await asyncio.sleep(max(0.0, begun + count / rate - loop.time()))
    print(json.dumps({"count": count, "answers": answers, "failures": failures, "slow": slow}))


if __name__ == "__main__":
    address, port, rate, *more = sys.argv[1:]
    asyncio.run(main(address, int(port), float(rate), *more[:1], *map(float, more[1:])))
