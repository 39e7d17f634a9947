"""What one pod's worker knows of its containers in the engine, so that it need not ask for what it knows.

An engine takes the longer for a list the more containers it has, of whomever: a hundred pods that each list their own
a few times cost it a hundred times what ten do. Of a pod that was made before our eyes the engine has nothing but what
we make, and what its events tell of; these are asked for one by one. As soon as anything goes wrong, or an earlier life
of the agent may have left something, only a list tells. Likewise an event that says what was seen already is no news.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from minik8s.runtime.base import ContainerInfo, Runtime, RuntimeEvent

_SEEN_AS: Final = {"start": "running", "die": "exited"}


class PodContainers:
    """`fresh`: the pod was made while this agent was there to see it, so the engine has nothing of it yet."""

    def __init__(self, runtime: Runtime, pod_uid: str, *, fresh: bool) -> None:
        self._runtime = runtime
        self._uid = pod_uid
        self._ids: set[str] | None = set() if fresh else None  # all that there are; None: only a list tells
        self._states: dict[str, str] = {}  # by id, as they were seen last
        self._looking = False
        self._meanwhile: list[RuntimeEvent] = []

    async def look(self, *, thorough: bool = False) -> list[ContainerInfo]:
        """All that there are now, also those that have exited. `thorough`: by a list. Raises RuntimeFailure."""
        self._looking = True
        try:
            if self._ids is None or thorough:
                seen = await self._runtime.containers(self._uid)
                for info in seen:
                    self.made(info.id)
            else:
                asked = frozenset(self._ids)
                seen = await self._runtime.inspect(sorted(asked))
                if self._ids is not None:
                    self._ids -= asked - {info.id for info in seen}
        finally:
            self._looking = False
        self._states = {info.id: info.state for info in seen}
        return seen

    def meanwhile(self) -> list[RuntimeEvent]:
        """The events that came during looks: whether they are news can be told now."""
        events, self._meanwhile = self._meanwhile, []
        return events

    @property
    def sure(self) -> bool:
        return self._ids is not None

    def made(self, container_id: str) -> None:
        """We, or somebody else, have made one."""
        if self._ids is not None:
            self._ids.add(container_id)

    def compare(self, listed: Collection[str]) -> None:
        """The engine has just listed all that it has."""
        if self._ids != set(listed):
            self.unsure()

    def unsure(self) -> None:
        """There may be something that we do not know of."""
        self._ids = None

    def is_news(self, event: RuntimeEvent) -> bool:
        """Whether an event tells what the last look has not seen. One that comes during a look is kept meanwhile."""
        if self._looking:
            self._meanwhile.append(event)
            return False
        if event.action == "create":
            self.made(event.container_id)
            return event.container_id not in self._states
        if event.action == "destroy":
            return event.container_id in self._states
        return self._states.get(event.container_id) != _SEEN_AS.get(event.action, "")
