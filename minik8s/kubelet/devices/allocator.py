"""Who gets which device, as pure functions and a ledger of who has which.

A device is held by one pod at a time. Within a pod, an init container's devices pass on to those that start after it
has ended, so that a pod never needs more than the scheduler has counted for it (`api/resources.effective`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from minik8s.api.kinds.pod import PodSpec
from minik8s.api.meta import Struct
from minik8s.api.resources import is_sidecar


class Device(NamedTuple):
    id: str
    healthy: bool = True
    numa: tuple[int, ...] = ()  # the NUMA nodes that it is near to; empty: not known


class PluginMount(Struct):
    source: str
    target: str
    readOnly: bool = False


class PluginDevice(Struct):
    source: str
    target: str
    permissions: str = "rwm"


class Answer(Struct):
    """What a plugin said to Allocate: all that a container needs to use its devices."""

    envs: dict[str, str] = {}
    mounts: tuple[PluginMount, ...] = ()
    devices: tuple[PluginDevice, ...] = ()
    annotations: dict[str, str] = {}
    cdi: tuple[str, ...] = ()


class Holding(Struct):
    """The devices of one resource that a container has, until its pod ends."""

    uid: str  # of the pod
    namespace: str
    pod: str
    container: str
    resource: str
    ids: tuple[str, ...]
    answer: Answer | None = None  # None: the plugin has not been asked yet
    preStart: bool = False  # whether its plugin is to be told of each start


class NotEnough(Exception):
    """Fewer devices are free than are asked for."""


class Ledger:
    def __init__(self, holdings: Iterable[Holding] = ()) -> None:
        self._by_pod: dict[str, dict[tuple[str, str], Holding]] = {}
        for holding in holdings:
            self.put(holding)

    def put(self, holding: Holding) -> None:
        self._by_pod.setdefault(holding.uid, {})[holding.container, holding.resource] = holding

    def get(self, uid: str, container: str, resource: str) -> Holding | None:
        return self._by_pod.get(uid, {}).get((container, resource))

    def drop(self, uid: str, container: str, resource: str) -> None:
        held = self._by_pod.get(uid, {})
        held.pop((container, resource), None)
        if not held:
            self._by_pod.pop(uid, None)

    def free(self, uid: str) -> bool:
        """Whether the pod held anything."""
        return self._by_pod.pop(uid, None) is not None

    def pods(self) -> AbstractSet[str]:
        return self._by_pod.keys()

    def all(self) -> list[Holding]:
        return [holding for held in self._by_pod.values() for holding in held.values()]

    def of(self, uid: str) -> list[Holding]:
        return list(self._by_pod.get(uid, {}).values())

    def taken(self, resource: str) -> set[str]:
        return {device for holding in self.all() if holding.resource == resource for device in holding.ids}

    def reusable(self, uid: str, spec: PodSpec, container: str, resource: str) -> set[str]:
        """What the init containers before `container` hold, without what goes on being used beside it."""
        passed: set[str] = set()
        for each in spec.initContainers:
            if each.name == container:
                break
            if not is_sidecar(each):
                passed |= self._ids(uid, each.name, resource)
        ended = {each.name for each in spec.initContainers if not is_sidecar(each)}
        for holding in self.of(uid):
            if holding.resource == resource and holding.container not in ended:
                passed -= set(holding.ids)
        return passed

    def _ids(self, uid: str, container: str, resource: str) -> set[str]:
        holding = self.get(uid, container, resource)
        return set(holding.ids) if holding is not None else set()


def secured(count: int, reusable: AbstractSet[str], devices: Mapping[str, Device]) -> tuple[str, ...]:
    """The healthy ones of what the pod's init containers leave, as many as are needed."""
    well = [name for name in reusable if name in devices and devices[name].healthy]
    return tuple(sorted(well, key=natural)[:count])


def available(devices: Mapping[str, Device], taken: AbstractSet[str]) -> list[str]:
    """Healthy and nobody's, in the order of their numbers."""
    return sorted((d.id for d in devices.values() if d.healthy and d.id not in taken), key=natural)


def choose(
    count: int,
    sure: Sequence[str],
    free: Sequence[str],
    preferred: Sequence[str],
    devices: Mapping[str, Device],
) -> tuple[str, ...]:
    """`count` ids: those that are `sure`, then what the plugin prefers, then few NUMA nodes. NotEnough."""
    if len(sure) + len(free) < count:
        raise NotEnough(f"Requested: {count}, Available: {len(sure) + len(free)}")
    chosen = list(dict.fromkeys(sure))[:count]
    for name in preferred:
        if len(chosen) < count and name in free and name not in chosen:
            chosen.append(name)
    rest = [name for name in free if name not in chosen]
    while len(chosen) < count:
        taken = _near(count - len(chosen), chosen, rest, devices)
        chosen += taken
        rest = [name for name in rest if name not in taken]
    return tuple(chosen)


def _near(count: int, chosen: Sequence[str], rest: Sequence[str], devices: Mapping[str, Device]) -> list[str]:
    """Up to `count` of one NUMA node: one that is used already, else the one that fits best, else the fullest."""
    room = Counter(node for name in rest for node in devices[name].numa)
    if not room:
        return list(rest[:count])
    used = {node for name in chosen if name in devices for node in devices[name].numa}

    def rank(node: int) -> tuple[bool, bool, int, int]:
        enough = room[node] >= count
        return node not in used, not enough, room[node] if enough else -room[node], node

    best = min(room, key=rank)
    return [name for name in rest if best in devices[name].numa][:count]


def natural(name: str) -> tuple[tuple[bool, int, str], ...]:
    """Sorts `gpu-2` before `gpu-10`."""
    parts = re.findall(r"[0-9]+|[^0-9]+", name)
    return tuple((not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts)
