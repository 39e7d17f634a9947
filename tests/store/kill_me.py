"""The victim of the kill -9 test: writes without end and prints each write that was acknowledged.

A line is `<key> <revision> <number>`; number -1 stands for a deletion.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from minik8s.store.sqlite import SqliteStore


async def main(path: Path, first: int) -> None:
    async with SqliteStore(path, keep=3_000) as store, asyncio.TaskGroup() as writers:
        os.write(1, b"ready 0 0\n")

        async def write(worker: int) -> None:
            number = first
            while True:
                key = f"/pods/a/{worker}-{number % 5}"
                data = b'{"metadata":{"resourceVersion":"","n":"%d"},"pad":"%s"}' % (number, b"x" * 900)
                change = await store.write(key, data, expect=None)
                os.write(1, b"%s %d %d\n" % (key.encode(), change.rev, number))
                if number % 7 == 0:
                    change = await store.write(key, None, expect=change.rev)
                    os.write(1, b"%s %d -1\n" % (key.encode(), change.rev))
                number += 1

        for worker in range(16):
            writers.create_task(write(worker))


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
