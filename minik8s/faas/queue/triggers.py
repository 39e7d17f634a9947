"""Triggers: which are in force, and calls that are made by the clock.

A time of a schedule is one asynchronous call: its idempotency key is the time, so that however often it is put it is
made once. Times that passed while nobody looked are made up for by one call, the latest.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from minik8s.api.cron import parse_cron
from minik8s.api.errors import Cause, Invalid, NotFound
from minik8s.api.kinds.function import Function
from minik8s.api.kinds.trigger import RESOURCE, CronTrigger, Trigger
from minik8s.api.meta import Condition
from minik8s.apiserver.admission import Operation
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.clock import parse_time, rfc3339
from minik8s.controllers.status import difference, only_status_changed, with_condition
from minik8s.faas.queue import cron
from minik8s.faas.queue.dispatcher import Dispatcher
from minik8s.faas.queue.queue import Call, new_id

LONGEST_WAIT = 60.0  # seconds between two looks at the clock: somebody may set it


class TriggerSchedules:
    """An admission step: a schedule must come some day, in a time zone that is known here."""

    resources = frozenset((RESOURCE.name,))

    def admit(self, op: Operation) -> None:
        spec = op.obj.get("spec") or {}
        if op.verb == "delete" or not spec.get("cron") or (op.old is not None and op.old.get("spec") == spec):
            return
        found = msgspec.convert(spec["cron"], CronTrigger)
        if fault := schedule_fault(found):
            field, text = fault
            value = getattr(found, field)
            cause = Cause(f"spec.cron.{field}", "FieldValueInvalid", f'Invalid value: "{value}": {text}')
            raise Invalid(RESOURCE.kind, op.name, [cause], group=RESOURCE.group)


def schedule_fault(found: CronTrigger) -> tuple[str, str] | None:
    """(field, what is wrong with it), if anything is."""
    try:
        place = cron.zone(found.timeZone)
    except ValueError as error:
        return "timeZone", str(error)
    try:
        schedule = parse_cron(found.schedule)
    except ValueError as error:
        return "schedule", str(error)
    if cron.next_time(schedule, place, 0.0) is None:
        return "schedule", "there is no such day"
    return None


def acceptance(trigger: Trigger, triggers: Iterable[Trigger], *, has_function: bool) -> Condition:
    """Whether a trigger is in force: of those for one method and path of the cluster the oldest is. Pure."""
    http, found = trigger.spec.http, trigger.spec.cron
    if http is not None:
        for other in sorted(triggers, key=_age):
            if _age(other) >= _age(trigger):
                break
            if other.spec.http is not None and other.spec.http == http and not other.deleting:
                return _refused("Conflict", f"{http.method or 'any'} {http.path} is the older Trigger {other.key}'s")
    if found is not None and (fault := schedule_fault(found)):
        return _refused("InvalidSchedule", f"spec.cron.{fault[0]}: {fault[1]}")
    if not has_function:
        return _refused("FunctionNotFound", f'there is no Function "{trigger.spec.function}" in this namespace')
    return Condition("Accepted", "True", "Accepted")


def _age(trigger: Trigger) -> tuple[str, str, str]:
    return trigger.metadata.creationTimestamp, trigger.metadata.namespace, trigger.metadata.name


def _refused(reason: str, message: str) -> Condition:
    return Condition("Accepted", "False", reason, message)


class TriggerController(Controller):
    name = "trigger"

    def __init__(self, client: Client, informers: Informers, dispatcher: Dispatcher) -> None:
        super().__init__(client, informers)
        self._dispatcher = dispatcher
        self._functions = informers.of(Function)
        self._triggers = informers.of(Trigger)
        self._triggers.add_index("function", lambda each: [f"{each.metadata.namespace}/{each.spec.function}"])
        self._triggers.add_index("path", lambda each: [each.spec.http.path] if each.spec.http is not None else [])
        self._triggers.on_change(self._trigger_changed)
        self._functions.on_change(self._function_changed)

    def _trigger_changed(self, old: Trigger | None, new: Trigger | None) -> None:
        if only_status_changed(old, new):
            return
        for each in (old, new):
            if each is not None:
                self.queue.add(each.key)
                for rival in self._triggers.by_index("path", each.spec.http.path) if each.spec.http else ():
                    self.queue.add(rival.key)

    def _function_changed(self, old: Function | None, new: Function | None) -> None:
        if old is None or new is None:
            for trigger in self._triggers.by_index("function", (old or new).key):  # type: ignore[union-attr]
                self.queue.add(trigger.key)

    async def reconcile(self, key: str) -> float | None:
        trigger = self._triggers.by_key(key)
        if trigger is None or trigger.deleting:
            return None
        function = self._functions.get(trigger.metadata.namespace, trigger.spec.function)
        http = trigger.spec.http
        rivals = self._triggers.by_index("path", http.path) if http is not None else ()
        accepted = acceptance(trigger, rivals, has_function=function is not None)
        now = self._dispatcher.clock()
        last, again = trigger.status.lastScheduleTime, None
        if trigger.spec.cron is not None and accepted.status == "True":
            last, again = await self._in_time(trigger, trigger.spec.cron, now)
        status = msgspec.structs.replace(
            trigger.status, lastScheduleTime=last, observedGeneration=trigger.metadata.generation,
            conditions=with_condition(trigger.status.conditions, accepted, now),
        )  # fmt: skip
        if (patch := difference(trigger.status, status)) is not None:
            try:
                await self.client.patch(Trigger, trigger.metadata.name, trigger.metadata.namespace, {"status": patch},
                                        subresource="status")  # fmt: skip
            except NotFound:
                return None
        return again

    async def _in_time(self, trigger: Trigger, found: CronTrigger, now: float) -> tuple[str, float | None]:
        """Put the call that is due, if one is; (time of the last one, seconds until the next)."""
        schedule, place, last = parse_cron(found.schedule), cron.zone(found.timeZone), trigger.status.lastScheduleTime
        due = cron.last_time(schedule, place, parse_time(last or trigger.metadata.creationTimestamp), now)
        if due is not None:
            last = rfc3339(due)
            body = b"" if found.payload is None else msgspec.json.encode(found.payload)
            headers = {"content-type": "application/json", "minik8s-trigger": trigger.metadata.name,
                       "minik8s-schedule-time": last}  # fmt: skip
            function = f"{trigger.metadata.namespace}/{trigger.spec.function}"
            key = f"cron/{trigger.metadata.uid}/{last}"
            await self._dispatcher.put(Call(new_id(), function, now, headers=headers, body=body, key=key))
        following = cron.next_time(schedule, place, now)
        return last, None if following is None else min(following - now, LONGEST_WAIT)
