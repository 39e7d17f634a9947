"""Any sequence of writes, deletions, compactions and restarts, against a dictionary."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from minik8s.store.base import CasFailed, Change, Compacted, Record, Store
from minik8s.store.memory import MemoryStore
from minik8s.store.sqlite import SqliteStore
from minik8s.store.watch_cache import WatchCache

KEYS = st.sampled_from([f"/{kind}/{name}" for kind in ("pods", "nodes") for name in ("a/x", "a/y", "a-b/x", "z")])
VALUES = st.one_of(st.none(), st.integers(0, 9))


def template(number: int | None) -> bytes | None:
    return None if number is None else b'{"metadata":{"resourceVersion":""},"n":%d}' % number


class Model(RuleBasedStateMachine):
    """`state` and `log` are what the store should hold; `floor` what it may have forgotten."""

    def make(self) -> Store:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory(prefix="minik8s-model-")
        self.store = self.make()
        self.state: dict[str, Record] = {}
        self.log: list[Change] = []
        self.revision = 0
        self.open()

    def open(self) -> None:
        self.runner.run(self.store.__aenter__())
        self.cache = WatchCache(self.store, ring=4)
        self.runner.run(self.cache.__aenter__())

    def close(self) -> None:
        self.runner.run(self.cache.__aexit__(None, None, None))
        self.runner.run(self.store.__aexit__(None, None, None))

    def teardown(self) -> None:
        self.close()
        self.runner.close()
        self.folder.cleanup()

    async def attempt(self, key: str, number: int | None, expect: int | None) -> Change | CasFailed:
        try:
            return await self.cache.write(key, template(number), expect=expect)
        except CasFailed as failed:
            return failed

    def expect(self, key: str, number: int | None, expect: int | None, result: Change | CasFailed) -> None:
        current = self.state.get(key)
        fits = expect is None or expect == (current.rev if current else 0)
        if not fits or (number is None and current is None):
            assert isinstance(result, CasFailed)
            assert result.current == current
            return
        self.revision += 1
        value = template(number)
        stamped = value and value.replace(b'""', b'"%d"' % self.revision)
        assert result == Change(key, self.revision, stamped, current)
        self.log.append(result)
        if stamped is None:
            del self.state[key]
        else:
            self.state[key] = Record(key, stamped, self.revision, current.create_rev if current else self.revision)

    def expectation(self, key: str, how: str) -> int | None:
        current = self.state.get(key)
        return {"any": None, "new": 0, "wrong": self.revision + 7}.get(how, current.rev if current else 0)

    @rule(key=KEYS, number=VALUES, how=st.sampled_from(["any", "new", "current", "wrong"]))
    def write(self, key: str, number: int | None, how: str) -> None:
        expect = self.expectation(key, how)
        self.expect(key, number, expect, self.runner.run(self.attempt(key, number, expect)))

    @rule(writes=st.lists(st.tuples(KEYS, VALUES, st.sampled_from(["any", "new", "current"])), max_size=80))
    def write_at_once(self, writes: list[tuple[str, int | None, str]]) -> None:
        plan = [(key, number, self.expectation(key, how)) for key, number, how in writes]

        async def together() -> list[Change | CasFailed]:
            return await asyncio.gather(*(self.attempt(*write) for write in plan))

        for write, result in zip(plan, self.runner.run(together()), strict=True):
            self.expect(*write, result)

    @rule(share=st.floats(0, 1))
    def compact(self, share: float) -> None:
        self.runner.run(self.store.compact(round(share * self.revision)))

    @rule()
    def restart(self) -> None:
        self.close()
        self.store = self.make()
        self.open()

    @rule(share=st.floats(0, 1), prefix=st.sampled_from(["/", "/pods/", "/pods/a/", "/nodes/z"]))
    def watch_the_past(self, share: float, prefix: str) -> None:
        after = round(share * self.revision)
        inside = [c for c in self.log if c.rev > after and (c.key.startswith(prefix) or prefix == c.key)]
        try:
            history = self.runner.run(self.store.history(prefix, after, self.revision))
        except Compacted:
            assert after < self.store.floor
            return
        assert history == inside

        async def replay() -> list[Change]:
            with await self.cache.watch(prefix, after) as watcher:
                return await watcher.next() if inside else []

        assert self.runner.run(replay()) == inside

    @invariant()
    def the_head_is_the_model(self) -> None:
        assert (self.cache.revision, self.store.revision) == (self.revision, self.revision)
        for prefix in ("/", "/pods/", "/nodes/", "/pods/a/"):
            living = [self.state[key] for key in sorted(self.state) if key.startswith(prefix)]
            assert self.cache.list(prefix) == (living, self.revision)


class MemoryModel(Model):
    def make(self) -> Store:
        return getattr(self, "store", None) or MemoryStore()


class SqliteModel(Model):
    def make(self) -> Store:
        return SqliteStore(Path(self.folder.name) / "state.db")


TestMemory = MemoryModel.TestCase
TestMemory.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestSqlite = SqliteModel.TestCase
TestSqlite.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
