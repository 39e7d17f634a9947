"""What became of each Ingress and DNS object: addresses and conditions in their statuses, events for what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from minik8s.api.kinds.daemonset import DaemonSet
from minik8s.api.kinds.dns import DNS
from minik8s.api.kinds.ingress import Ingress
from minik8s.api.kinds.service import Service
from minik8s.api.meta import Condition, Json, Object
from minik8s.client.base import Client
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock
from minik8s.controllers.dns import service_name, service_names
from minik8s.controllers.dns_plan import INGRESS_EXISTS, derive, ingress_name, status_of
from minik8s.controllers.ingress_objects import NAMESPACE, NGINX, Verdict
from minik8s.controllers.ingress_routes import Problem
from minik8s.controllers.status import difference, with_condition

TRYING, STARTING = "nginx is trying the configuration", "nginx is not ready on any node yet"


class Outcome(NamedTuple):
    """Of one look. Fragments are hashes by Ingress key: of what was wanted, and of what is live."""

    ours: Sequence[Ingress]
    problems: Mapping[str, tuple[Problem, ...]]  # by Ingress key
    wanted: Mapping[str, str]
    live: Mapping[str, str]
    verdict: Verdict
    addresses: Sequence[str]  # that answer
    troubles: tuple[str, ...]  # why nginx does not run where it should


NOTHING = Outcome((), {}, {}, {}, Verdict(True), (), ())


def pending(outcome: Outcome, key: str) -> Problem | None:
    """Why what an Ingress asks for is not served; None if it is. Pure."""
    wanted = outcome.wanted.get(key)
    if wanted is None:
        return Problem("NothingToServe", "none of its paths can be served")
    if outcome.live.get(key) != wanted:
        if outcome.verdict.taken is False:
            words = f"nginx refuses the configuration and keeps the one it had: {outcome.verdict.words}"
            return Problem("ConfigurationRefused", words)
        return Problem("ConfigurationPending", outcome.verdict.words or TRYING)
    return None if outcome.addresses else Problem("NginxNotReady", "; ".join(outcome.troubles) or STARTING)


def load_balancer(outcome: Outcome, key: str, ports: tuple[int, int]) -> list[Json]:
    """`status.loadBalancer.ingress` of an Ingress of which something is live. Pure."""
    if key not in outcome.live:
        return []
    problems = outcome.problems.get(key, ())
    faults = [{"port": port, "protocol": "TCP", "error": problems[0].reason} for port in ports if problems]
    return [{"ip": ip} | ({"ports": faults} if faults else {}) for ip in outcome.addresses]


def _of_all(outcome: Outcome) -> set[Problem]:
    """What is wrong with nginx itself."""
    problems = {Problem("NginxNotReady", words) for words in outcome.troubles}
    if outcome.verdict.taken is False:
        problems.add(Problem("ConfigurationRefused", outcome.verdict.words))
    return problems


class IngressTelling:
    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, clock: Clock, ports: tuple[int, int]
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._clock = clock
        self._ports = ports
        self._ingresses = informers.of(Ingress)
        self._dns = informers.of(DNS)
        self._services = informers.of(Service)
        self._sets = informers.of(DaemonSet)
        service_names(self._services)
        self._told: dict[str, frozenset[Problem]] = {}  # uid -> what its object has been told

    async def tell(self, outcome: Outcome) -> None:
        """Write what differs from what is written, and events for what is new since the last look."""
        seen = {uid for each in outcome.ours for uid in self._tell_ingress(each, outcome)}
        daemons = self._sets.get(NAMESPACE, NGINX)
        if daemons is not None:
            seen.add(self._tell_one(daemons, _of_all(outcome)))
            await self._write_condition(daemons, outcome.verdict)
        self._told = {uid: told for uid, told in self._told.items() if uid in seen}
        for each in outcome.ours:
            await self._write_ingress(each, load_balancer(outcome, each.key, self._ports))
        ours = {each.key: each for each in outcome.ours}
        for dns in self._dns.list():
            if not dns.deleting:
                await self._write_dns(dns, ours.get(f"{dns.metadata.namespace}/{ingress_name(dns)}"), outcome)

    # -- events

    def _tell_ingress(self, ingress: Ingress, outcome: Outcome) -> Iterable[str]:
        problems = set(outcome.problems.get(ingress.key, ()))
        why = pending(outcome, ingress.key)
        if why is not None and why.message not in (TRYING, STARTING):  # these pass
            problems.add(why)
        yield self._tell_one(ingress, problems)
        if (dns := self._owner(ingress)) is not None:
            yield self._tell_one(dns, problems)

    def _tell_one(self, obj: Object, problems: set[Problem]) -> str:
        """Returns the object's uid."""
        uid = obj.metadata.uid
        for problem in sorted(problems - self._told.get(uid, frozenset())):
            self._recorder.event(obj, "Warning", problem.reason, problem.message)
        self._told[uid] = frozenset(problems)
        return uid

    def _owner(self, ingress: Ingress) -> DNS | None:
        """The DNS object of which an Ingress was made."""
        reference = ingress.controller
        if reference is None or reference.kind != "DNS":
            return None
        dns = self._dns.get(ingress.metadata.namespace, reference.name)
        return dns if dns is not None and dns.metadata.uid == reference.uid else None

    # -- statuses

    async def _write_condition(self, daemons: DaemonSet, verdict: Verdict) -> None:
        """Of the DaemonSet: whether nginx takes what is wanted now, in its own words."""
        if verdict.taken is None:
            return
        new = Condition(
            type="ConfigurationAccepted",
            status=str(verdict.taken),
            reason="Accepted" if verdict.taken else "ConfigurationRefused",
            message=verdict.words,
        )
        conditions = with_condition(daemons.status.conditions, new, self._clock())
        if conditions != daemons.status.conditions:
            body = {"metadata": {"uid": daemons.metadata.uid}, "status": {"conditions": conditions}}
            written = await self._client.patch(DaemonSet, NGINX, NAMESPACE, body, subresource="status")
            await self._sets.caught_up(written.metadata.resourceVersion)

    async def _write_ingress(self, ingress: Ingress, entries: list[Json]) -> None:
        if entries == ((ingress.status.get("loadBalancer") or {}).get("ingress") or []):
            return
        meta = ingress.metadata
        patch = {"metadata": {"uid": meta.uid}, "status": {"loadBalancer": {"ingress": entries or None}}}
        written = await self._client.patch(Ingress, meta.name, meta.namespace, patch, subresource="status")
        await self._ingresses.caught_up(written.metadata.resourceVersion)

    async def _write_dns(self, dns: DNS, ingress: Ingress | None, outcome: Outcome) -> None:
        meta = dns.metadata
        problems = list(derive(dns, lambda space, uid: service_name(self._services, space, uid)).problems)
        if ingress is None:
            why: Problem | None = Problem("ConfigurationPending", "its Ingress is being made")
        elif self._owner(ingress) is not dns:
            why = Problem(INGRESS_EXISTS, f"there is an Ingress {ingress.key} already, which is somebody else's")
            problems.append(why)
        else:
            why = pending(outcome, ingress.key)
            problems += outcome.problems.get(ingress.key, ())
        served = (
            [each["ip"] for each in load_balancer(outcome, ingress.key, self._ports)] if ingress is not None else []
        )
        status = status_of(dns, problems, why, served if why is None else [], self._clock())
        patch = difference(dns.status, status)
        if patch is not None:
            body = {"metadata": {"uid": meta.uid}, "status": patch}
            written = await self._client.patch(DNS, meta.name, meta.namespace, body, subresource="status")
            await self._dns.caught_up(written.metadata.resourceVersion)
