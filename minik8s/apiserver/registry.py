"""The generic verbs on stored objects: one way to create, change and remove, whatever the kind.

Each write is: decode the newest state, compute the next one, admit, validate, compare-and-swap. A lost race begins
again from the newer state, so a patch never fails because another one was faster.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from minik8s.api.errors import Invalid, TooManyRequests, already_exists, not_found
from minik8s.api.resource import Json, Resource
from minik8s.apiserver import claims, naming, strategy
from minik8s.apiserver.admission import Chain, End, Operation
from minik8s.apiserver.auth import User
from minik8s.apiserver.claims import ClaimLost
from minik8s.apiserver.deletion import GRACEFUL, DeleteOptions, check_preconditions, finished, plan_delete
from minik8s.apiserver.strategy import Part
from minik8s.clock import Clock, system_clock
from minik8s.store.base import CasFailed, Change, Record, stamp
from minik8s.store.watch_cache import WatchCache

ATTEMPTS = 64  # lost races of one write before its client is asked to come back later
NAME_ATTEMPTS = 8  # generated names that may be taken, as Kubernetes

_CHECKED_AGAINST_OLD = ("", "status", "scale", "approval")

decode = msgspec.json.decode


class Writer(NamedTuple):
    """Who writes, and whether it is to happen."""

    user: User
    dry_run: bool = False


class Outcome(NamedTuple):
    """The stored bytes after a write (of a removed object: its last state), and whether it is gone now."""

    value: bytes
    removed: bool = False


class Registry:
    def __init__(
        self,
        cache: WatchCache,
        admission: Chain,
        *,
        clock: Clock = system_clock,
        rng: random.Random | None = None,
    ) -> None:
        self.cache = cache
        self.clock = clock
        self._admission = admission
        self._rng = rng or random.SystemRandom()

    def get(self, resource: Resource, namespace: str, name: str) -> Record:
        record = self.cache.get(resource.key(namespace, name))
        if record is None:
            raise not_found(resource.plural, name, group=resource.group)
        return record

    # -- create

    async def create(self, resource: Resource, namespace: str, obj: Json, writer: Writer) -> Outcome:
        """Store a new object that has been read and checked by `body.read`; it is changed in place."""
        meta = obj["metadata"]
        strategy.begin(resource, obj, namespace, now=self.clock(), uid=self._uid())
        prefix = meta.get("generateName") if not meta.get("name") else None
        taken = 0  # names, so far
        for _ in range(ATTEMPTS):
            if prefix:
                meta["name"] = naming.generated(prefix, self._rng)
            try:
                return await self._create(resource, namespace, obj, writer)
            except ClaimLost:
                continue
            except CasFailed:
                taken += 1
                if not prefix or taken == NAME_ATTEMPTS:
                    raise already_exists(resource.plural, meta["name"], group=resource.group) from None
        raise TooManyRequests(f"{resource.name} are made by too many at once", retry_after=1)

    async def _create(self, resource: Resource, namespace: str, obj: Json, writer: Writer) -> Outcome:
        op = Operation("create", resource, "", writer.user, obj, None, dry_run=writer.dry_run)
        how: End = "failed"
        try:
            name = obj["metadata"].get("name")
            key = resource.key(namespace, name) if name else ""
            resource.default(obj)
            self._admission.admit(op)
            resource.prepare(obj, None)
            self._validate(resource, obj, None)
            template = strategy.encode(obj)
            if writer.dry_run:
                if (existing := self.cache.get(key)) is not None:
                    raise CasFailed(key, existing)
                return Outcome(template.replace(b'"resourceVersion":"",', b"", 1))
            change = await self._write(op, key, template, expect=0)
            how = "stored"
            assert change.value is not None
            return Outcome(change.value)
        finally:
            op.end(how)

    async def _write(self, op: Operation, key: str, template: bytes | None, *, expect: int) -> Change:
        """Compare-and-swap. What the object wants is claimed before, and let go of once it no longer has it.

        Where it is unknown whether the write took place, claims stay.
        """
        if not op.wants and not op.has:
            return await self.cache.write(key, template, expect=expect)
        no_longer = claims.held(self.cache, op.has - op.wants if template is not None else op.has, key)
        fresh = await claims.take(self.cache, op.wants - op.has, key) if template is not None else {}
        try:
            done = await self.cache.write(key, template, expect=expect)
        except CasFailed:
            await claims.drop(self.cache, fresh)
            raise
        await claims.drop(self.cache, no_longer)
        return done

    # -- update

    async def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        change: Callable[[Json], Json],
        writer: Writer,
        *,
        part: Part = strategy.main_part,
        subresource: str = "",
        trusted: bool = False,
    ) -> Outcome:
        """Store what `change` makes of the newest state (a fresh copy, its own to alter); `part` of it counts.

        `trusted`: the server itself has made the change, nothing is defaulted or validated.

        Where the changed object carries a resourceVersion it must still be the current one, else Conflict.
        """
        for _ in range(ATTEMPTS):
            record = self.get(resource, namespace, name)
            try:
                return await self._update(resource, record, change, writer, part, subresource, trusted=trusted)
            except CasFailed:
                continue
        raise TooManyRequests(f'{resource.name} "{name}" is changed by too many at once', retry_after=1)

    async def _update(
        self,
        resource: Resource,
        record: Record,
        change: Callable[[Json], Json],
        writer: Writer,
        part: Part,
        subresource: str,
        *,
        trusted: bool,
    ) -> Outcome:
        old: Json = decode(record.value)
        new = change(decode(record.value))
        strategy.check_identity(resource, new, old)
        obj = part(resource, new, old)
        op = Operation("update", resource, subresource, writer.user, obj, old, dry_run=writer.dry_run)
        how: End = "failed"
        try:
            if not trusted:
                resource.default(obj)
            self._admission.admit(op)
            if not trusted:
                resource.prepare(obj, old)
                strategy.bump_generation(resource, obj, old)
                # What only subresources may change is no offence against the kind's immutable fields.
                self._validate(resource, obj, old if subresource in _CHECKED_AGAINST_OLD else obj)
            template = strategy.encode(obj)
            remove = finished(obj)
            if writer.dry_run or (not remove and _same(obj, old)):
                how = "stored"
                return Outcome(stamp(template, record.rev))
            done = await self._write(op, record.key, None if remove else template, expect=record.rev)
            how = "removed" if remove else "stored"
            return Outcome(done.value or stamp(template, done.rev), remove)
        finally:
            op.end(how)

    # -- delete

    async def delete(
        self, resource: Resource, namespace: str, name: str, options: DeleteOptions, writer: Writer
    ) -> Outcome:
        for _ in range(ATTEMPTS):
            record = self.get(resource, namespace, name)
            try:
                return await self._delete(resource, record, options, writer)
            except CasFailed:
                continue
        raise TooManyRequests(f'{resource.name} "{name}" is changed by too many at once', retry_after=1)

    async def _delete(self, resource: Resource, record: Record, options: DeleteOptions, writer: Writer) -> Outcome:
        obj: Json = decode(record.value)
        check_preconditions(resource, obj, options.preconditions)
        op = Operation("delete", resource, "", writer.user, obj, obj, dry_run=writer.dry_run)
        how: End = "failed"
        try:
            self._admission.admit(op)
            rule = GRACEFUL.get(resource.name)
            grace = rule(obj, options.gracePeriodSeconds) if rule else 0
            remove, new = plan_delete(obj, options, grace, self.clock())
            template = strategy.encode(new)
            unchanged = not remove and _same(new, decode(record.value))
            if writer.dry_run or unchanged:
                how = "stored"
                return Outcome(stamp(template, record.rev), remove)
            done = await self._write(op, record.key, None if remove else template, expect=record.rev)
            how = "removed" if remove else "stored"
            return Outcome(done.value or stamp(template, done.rev), remove)
        finally:
            op.end(how)

    def _validate(self, resource: Resource, obj: Json, old: Json | None) -> None:
        meta = obj["metadata"]
        causes = naming.metadata_faults(meta, resource)
        if old is not None and meta.get("deletionTimestamp"):
            fault = naming.new_finalizers(old["metadata"].get("finalizers") or (), meta.get("finalizers") or ())
            causes += [fault] if fault else []
        causes += resource.validate(obj, old)
        if causes:
            raise Invalid(resource.kind, str(meta.get("name") or ""), causes, group=resource.group)

    def _uid(self) -> str:
        """A random UUID (RFC 9562, version 4). Python's own class takes six times as long to say the same."""
        bits = self._rng.getrandbits(128) & ~(0xF000 << 64 | 0xC000 << 48) | 0x4000 << 64 | 0x8000 << 48
        text = f"{bits:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _same(new: Json, old: Json) -> bool:
    """Equal but for the resourceVersion."""
    if any(new.get(key) != value for key, value in old.items() if key != "metadata") or len(new) != len(old):
        return False
    return strategy.without_version(new["metadata"]) == strategy.without_version(old["metadata"])
