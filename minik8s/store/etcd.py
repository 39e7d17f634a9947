"""The store in etcd, for several masters at once; etcd's revisions are the resourceVersions.

Values lie in etcd as templates and are stamped with their mod_revision when they are read, because nobody knows that
revision before the write. Every write is one transaction on one key, so a revision of etcd is one change at most.
aetcd brings the connection and the compiled messages of etcd's v3 API; requests are built here, since its client has
neither ranges in pages nor watches that hand over a whole response (docs/adr/0001-aetcd.md).

A watch tells no one where the past ends. So that `history` knows, each `load` writes a mark: its revision is one that
the watch will report, as all revisions that the head has ever shown.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Self

import aetcd.rpc

from minik8s.store.base import (
    CasFailed,
    Change,
    Compacted,
    Record,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    TooLarge,
    check_write,
    stamp,
)
from minik8s.store.single_writer import KEEP, STEP

rpc: Any = aetcd.rpc  # generated code without types

ROOT = b"/minik8s"
FOLDER, FOLDER_END = b"/minik8s/", b"/minik8s0"  # "0" follows "/": the range of all keys in the folder
MARK = b"/minik8s/.mark"
FORMAT = b"1"  # the mark's value: raised when the layout changes
TIMEOUT = 10.0  # seconds for one request, waiting for the connection included
RETRY = 0.2  # seconds between attempts to resume a watch
FATAL = (rpc.StatusCode.UNAUTHENTICATED, rpc.StatusCode.PERMISSION_DENIED, rpc.StatusCode.UNIMPLEMENTED)

OPTIONS = (
    ("grpc.max_receive_message_length", -1),  # pages and watch responses may exceed gRPC's 4 MiB
    ("grpc.keepalive_time_ms", 10_000),  # notices a peer that is gone without a word; etcd allows a ping each 5 s
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
)


class EtcdStore:
    """A `Store` under `/minik8s/` of the etcd cluster at `endpoints`, tried in that order. History is kept for `keep`
    revisions; whichever master comes first compacts."""

    def __init__(self, endpoints: Sequence[tuple[str, int]], *, keep: int = KEEP, page: int = 500) -> None:
        self._endpoints = tuple(endpoints)
        self._keep = keep
        self._page = page
        self._revision = 0
        self._floor = 0
        self._closed = False

    async def __aenter__(self) -> Self:
        self._channel = rpc.insecure_channel(await _target(self._endpoints), options=OPTIONS)
        self._kv = rpc.KVStub(self._channel)
        self._watches = rpc.WatchStub(self._channel)
        self._maintenance = rpc.MaintenanceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        await self._channel.close()

    @property
    def revision(self) -> int:
        return self._revision

    @property
    def floor(self) -> int:
        return self._floor

    async def load(self) -> tuple[int, list[Record]]:
        while True:
            try:
                rev = await self._mark()
                return rev, await self._records(rev)
            except Compacted:  # between two pages: take a newer snapshot
                continue

    async def _records(self, rev: int) -> list[Record]:
        records: list[Record] = []
        start = FOLDER
        while True:
            page = await self._call(
                self._kv.Range, rpc.RangeRequest(key=start, range_end=FOLDER_END, limit=self._page, revision=rev)
            )
            records += [_record(kv) for kv in page.kvs if kv.key != MARK]
            if not page.more:
                return records
            start = page.kvs[-1].key + b"\0"

    async def _mark(self) -> int:
        """Look whether the folder is ours, and write the mark; returns its revision."""
        found = await self._call(self._kv.Range, rpc.RangeRequest(key=MARK))
        if found.kvs and found.kvs[0].value != FORMAT:
            raise StoreCorrupt(
                f"{self} holds data of format {found.kvs[0].value!r}, this minik8s knows only {FORMAT!r}; "
                "it was not changed. Use the version of minik8s that wrote it, or a newer one"
            )
        if not found.kvs:
            folder = rpc.RangeRequest(key=FOLDER, range_end=FOLDER_END, count_only=True)
            if (await self._call(self._kv.Range, folder)).count:
                raise StoreCorrupt(
                    f"{self} has keys under {FOLDER.decode()} that minik8s did not write; they were not changed. "
                    "Use another etcd, or remove them to start an empty cluster"
                )
        put = await self._call(self._kv.Put, rpc.PutRequest(key=MARK, value=FORMAT))
        self._revision = max(self._revision, put.header.revision)
        return int(put.header.revision)

    async def write(self, key: str, template: bytes | None, *, expect: int | None) -> Change:
        check_write(key, template)
        answer = await self._call(self._kv.Txn, _transaction(ROOT + key.encode(), template, expect))
        if not answer.succeeded:
            found = answer.responses[0].response_range.kvs
            raise CasFailed(key, _record(found[0]) if found else None)
        done = answer.responses[0]
        old = done.response_delete_range.prev_kvs if template is None else [done.response_put.prev_kv]
        rev = answer.header.revision
        self._revision = max(self._revision, rev)
        prev = _record(old[0]) if old[0].mod_revision else None
        return Change(key, rev, None if template is None else stamp(template, rev), prev)

    async def changes(self, after: int) -> AsyncGenerator[Sequence[Change], None]:
        while True:
            try:
                async with aclosing(self._watch(after)) as batches:
                    async for batch in batches:
                        after = batch[-1].rev
                        self._revision = max(self._revision, after)
                        yield batch
                        await self._trim()
            except rpc.AioRpcError as error:
                if error.code() in FATAL:
                    raise self._translated(error) from error
            await asyncio.sleep(RETRY)  # the connection is lost: go on after the last change that came

    async def history(self, prefix: str, after: int, upto: int) -> list[Change]:
        if after < self._floor:
            raise Compacted(after, self._floor)
        found: list[Change] = []
        if after >= upto:
            return found
        try:
            async with asyncio.timeout(TIMEOUT), aclosing(self._watch(after)) as batches:
                async for batch in batches:
                    found += [c for c in batch if c.rev <= upto and c.key.startswith(prefix or "/")]
                    if batch[-1].rev >= upto:
                        break
        except rpc.AioRpcError as error:
            raise self._translated(error) from error
        except TimeoutError as error:
            raise StoreUnavailable(f"{self} did not report the changes up to revision {upto}") from error
        return found

    async def compact(self, before: int) -> None:
        if (before := min(before, self._revision)) <= self._floor:
            return
        with suppress(Compacted):  # another master was faster
            await self._call(self._kv.Compact, rpc.CompactionRequest(revision=before))
        self._floor = before

    async def check(self) -> None:
        """etcd verifies itself and raises alarms."""
        answer = await self._call(self._maintenance.Alarm, rpc.AlarmRequest())
        for alarm in answer.alarms:
            if alarm.alarm == rpc.CORRUPT:
                raise StoreCorrupt(f"{self}: member {alarm.memberID:x} is corrupt: replace it from a healthy member")
            raise StoreUnavailable(f"{self} is out of space: compact, defragment and disarm the alarm with etcdctl")

    def __str__(self) -> str:
        return "etcd at " + ",".join(f"{host}:{port}" for host, port in self._endpoints)

    async def _trim(self) -> None:
        if self._revision - self._floor >= self._keep + STEP:
            with suppress(StoreUnavailable):  # there will be another change, and another attempt
                await self.compact(self._revision - self._keep)

    async def _watch(self, after: int) -> AsyncGenerator[list[Change], None]:
        """Batches of the changes after revision `after`; a mark is a change with an empty key.

        It starts at `after` itself, not behind it: etcd then refuses exactly what is older than a compaction. A watch
        from the very revision of a compaction is accepted, but a deletion at that revision is lost.
        """
        call = self._watches.Watch(wait_for_ready=True)
        create = rpc.WatchCreateRequest(key=FOLDER, range_end=FOLDER_END, start_revision=max(after, 1), prev_kv=True)
        try:
            await call.write(rpc.WatchRequest(create_request=create))
            async for answer in call:
                if answer.compact_revision:
                    self._floor = max(self._floor, answer.compact_revision)
                    raise Compacted(after, self._floor)
                if answer.canceled:
                    raise StoreUnavailable(f"{self} ended the watch: {answer.cancel_reason}")
                if batch := [_change(event) for event in answer.events if event.kv.mod_revision > after]:
                    yield batch
        except asyncio.CancelledError:
            if self._closed:  # gRPC cancels the streams of a channel that is closed
                raise StoreUnavailable("the store is closed") from None
            raise
        finally:
            call.cancel()

    async def _call(self, method: Any, request: Any) -> Any:
        try:
            return await method(request, timeout=TIMEOUT, wait_for_ready=True)
        except rpc.AioRpcError as error:
            raise self._translated(error) from error

    def _translated(self, error: Any) -> StoreError:
        code, details = error.code(), error.details()
        if code in (rpc.StatusCode.UNAVAILABLE, rpc.StatusCode.DEADLINE_EXCEEDED):
            return StoreUnavailable(f"{self} cannot be reached ({details}): is it running, is the address right?")
        if code == rpc.StatusCode.OUT_OF_RANGE and "compacted" in details:
            return Compacted(0, self._floor)
        if code == rpc.StatusCode.INVALID_ARGUMENT and "too large" in details:
            return TooLarge(f"the object is larger than {self} takes (1.5 MiB unless configured)")
        return StoreUnavailable(f"{self} refused: {details}")


async def _target(endpoints: Sequence[tuple[str, int]]) -> str:
    """gRPC's name of several addresses: all of one family (https://github.com/grpc/grpc/blob/master/doc/naming.md)."""
    loop = asyncio.get_running_loop()
    for family, scheme, form in ((socket.AF_INET, "ipv4", "{}:{}"), (socket.AF_INET6, "ipv6", "[{}]:{}")):
        addresses: list[str] = []
        try:
            for host, port in endpoints:
                found = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
                addresses += [form.format(*address[4][:2]) for address in found]
        except socket.gaierror as error:
            failure = error
        else:
            return f"{scheme}:{','.join(addresses)}"
    raise StoreUnavailable(f"etcd endpoint {host} cannot be resolved: {failure.strerror}")


def _record(kv: Any) -> Record:
    return Record(kv.key[len(ROOT) :].decode(), stamp(kv.value, kv.mod_revision), kv.mod_revision, kv.create_revision)


def _change(event: Any) -> Change:
    kv, rev = event.kv, event.kv.mod_revision
    if kv.key == MARK:
        return Change("", rev, None, None)
    prev = _record(event.prev_kv) if event.prev_kv.mod_revision else None
    deleted = event.type == event.DELETE
    return Change(kv.key[len(ROOT) :].decode(), rev, None if deleted else stamp(kv.value, rev), prev)


def _transaction(key: bytes, template: bytes | None, expect: int | None) -> Any:
    """Write if the key is as expected, else read what it is."""
    compare = rpc.Compare
    conditions = []
    if expect is not None:
        conditions.append(compare(key=key, target=compare.MOD, result=compare.EQUAL, mod_revision=expect))
    if template is None:
        conditions.append(compare(key=key, target=compare.CREATE, result=compare.GREATER, create_revision=0))
        write = rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key, prev_kv=True))
    else:
        write = rpc.RequestOp(request_put=rpc.PutRequest(key=key, value=template, prev_kv=True))
    read = rpc.RequestOp(request_range=rpc.RangeRequest(key=key))
    return rpc.TxnRequest(compare=conditions, success=[write], failure=[read])
