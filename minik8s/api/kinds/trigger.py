"""Trigger: what calls a Function besides its own URL: a method and path at the gateways, or the clock.

apiVersion: faas.minik8s.io/v1
    kind: Trigger
    metadata: {name: nightly}
    spec:
      function: report
      cron: {schedule: "0 3 * * *", timeZone: Europe/Berlin, payload: {full: true}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from minik8s.api.cron import parse_cron
from minik8s.api.errors import Cause, invalid, not_supported, required
from minik8s.api.kinds.columns import AGE, NAME, condition, dig
from minik8s.api.kinds.validation import DNS_LABEL, DNS_LABEL_HINT
from minik8s.api.kinds.workflow import GROUP
from minik8s.api.meta import Condition, Object, Struct
from minik8s.api.resource import Column, Json, Resource

METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
RESERVED: Final = ("/function", "/healthz")  # the gateways' own
PATH = re.compile(r"/|(/[A-Za-z0-9._~!$&'()+,;=:@%-]+)+/?|(/[A-Za-z0-9._~!$&'()+,;=:@%-]+)*/\*")
ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")


class HttpTrigger(Struct):
    method: str = ""  # "" = any
    path: str = ""  # exact, or ending in /* for all below


class CronTrigger(Struct):
    schedule: str = ""
    timeZone: str = ""  # "" = UTC
    payload: Any = None


class TriggerSpec(Struct):
    function: str = ""
    http: HttpTrigger | None = None
    cron: CronTrigger | None = None


class TriggerStatus(Struct):
    lastScheduleTime: str = ""  # of a cron trigger: the time of the schedule that was enqueued last
    conditions: tuple[Condition, ...] = ()
    observedGeneration: int = 0


class Trigger(Object):
    spec: TriggerSpec = TriggerSpec()
    status: TriggerStatus = TriggerStatus()


def _default(trigger: Json) -> None:
    http = dig(trigger, "spec.http")
    if isinstance(http, dict) and isinstance(http.get("method"), str):
        http["method"] = http["method"].upper()


def _prepare(trigger: Json, old: Json | None) -> None:
    if old is None:
        trigger.pop("status", None)


def _validate(trigger: Json, old: Json | None) -> list[Cause]:
    spec = trigger.get("spec") or {}
    causes = []
    function, http, cron = spec.get("function") or "", spec.get("http"), spec.get("cron")
    if not function:
        causes.append(required("spec.function", "the name of a Function of this namespace"))
    elif not DNS_LABEL.fullmatch(function):
        causes.append(invalid("spec.function", function, DNS_LABEL_HINT))
    if (http is None) == (cron is None):
        causes.append(invalid("spec", ", ".join(sorted(spec)), "must have exactly one of: `http` or `cron`"))
    if http is not None:
        causes += _http(http)
    if cron is not None:
        causes += _cron(cron)
    return causes


def _http(http: Json) -> Iterator[Cause]:
    if http.get("method") and http["method"] not in METHODS:
        yield not_supported("spec.http.method", http["method"], METHODS)
    path = http.get("path") or ""
    if not path:
        yield required("spec.http.path", "e.g. /hello, or /shop/* for all below")
    elif not PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        yield invalid("spec.http.path", path, "must begin with '/', be as in a URL, and may end in '/*'")
    elif any(path == own or path.startswith(f"{own}/") for own in RESERVED):
        yield invalid("spec.http.path", path, f"{' and '.join(RESERVED)} are the gateway's own: choose another")


def _cron(cron: Json) -> Iterator[Cause]:
    try:
        parse_cron(cron.get("schedule") or "")
    except ValueError as error:
        yield invalid("spec.cron.schedule", cron.get("schedule") or "", str(error))
    zone = cron.get("timeZone") or ""
    if zone and not ZONE.fullmatch(zone):
        yield invalid("spec.cron.timeZone", zone, "must be a name of the time zone database, e.g. Europe/Berlin")


def _accepted(trigger: Json, now: float) -> str:
    return str((condition(trigger, "Accepted") or {}).get("status", "Unknown"))


def _when(trigger: Json, now: float) -> str:
    cron = dig(trigger, "spec.cron")
    if cron:
        return f"cron {cron.get('schedule', '')}" + (f" {cron['timeZone']}" if cron.get("timeZone") else "")
    return f"{dig(trigger, 'spec.http.method', '') or '*'} {dig(trigger, 'spec.http.path', '')}"


RESOURCE = Resource(
    kind="Trigger",
    plural="triggers",
    singular="trigger",
    group=GROUP,
    type=Trigger,
    definition="io.minik8s.api.faas.v1.Trigger",
    subresources=frozenset(("status",)),
    columns=(
        NAME,
        Column("Function", lambda trigger, now: dig(trigger, "spec.function", ""), description="What is called."),
        Column("When", _when, description="The method and path, or the schedule."),
        Column("Accepted", _accepted, description="Whether it is in force."),
        Column("Reason", lambda t, now: (condition(t, "Accepted") or {}).get("reason", ""), description="Why not."),
        AGE,
    ),
    default=_default,
    prepare=_prepare,
    validate=_validate,
)
