"""What a worker knows of its pod's containers: when the engine is asked, and what is news."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest

from minik8s.kubelet.pod_containers import PodContainers
from minik8s.runtime.base import ContainerInfo, RuntimeEvent, SandboxSpec
from minik8s.runtime.fake import FakeRuntime

UID = "u1"


class Asked(FakeRuntime):
    lists = 0
    events_of_looks: tuple[RuntimeEvent, ...] = ()
    told: PodContainers

    async def containers(self, pod_uid: str | None = None) -> list[ContainerInfo]:
        self.lists += 1
        return await super().containers(pod_uid)

    async def inspect(self, container_ids: Sequence[str]) -> list[ContainerInfo]:
        found = await super().inspect(container_ids)
        news = [event for event in self.events_of_looks if self.told.is_news(event)]
        assert not news  # not before the look is over
        return found


@pytest.fixture
async def runtime() -> AsyncIterator[Asked]:
    async with Asked() as engine:
        yield engine


async def sandbox(runtime: FakeRuntime, attempt: int = 0) -> str:
    made = await runtime.create_sandbox(SandboxSpec(UID, "web", "default", "web", attempt))
    await runtime.start_sandbox(made)
    return made


def event(container_id: str, action: str) -> RuntimeEvent:
    return RuntimeEvent(UID, container_id, action)


async def ids(containers: PodContainers, *, thorough: bool = False) -> set[str]:
    return {info.id for info in await containers.look(thorough=thorough)}


async def test_what_we_made_is_asked_for_by_id(runtime: Asked):
    runtime.told = known = PodContainers(runtime, UID, fresh=True)
    assert await ids(known) == set()
    mine = await sandbox(runtime)
    known.made(mine)
    assert await ids(known) == {mine}
    await runtime.remove(mine)
    assert await ids(known) == set()
    assert known.sure
    assert runtime.lists == 0


async def test_a_stranger_is_learnt_from_its_event_or_a_thorough_look(runtime: Asked):
    runtime.told = known = PodContainers(runtime, UID, fresh=True)
    first, second = await sandbox(runtime), await sandbox(runtime, 1)
    assert await ids(known) == set()
    assert known.is_news(event(first, "create"))
    assert await ids(known) == {first}
    assert await ids(known, thorough=True) == await ids(known) == {first, second}
    assert runtime.lists == 1


@pytest.mark.parametrize("listed", [["other"], []])
async def test_a_list_that_says_otherwise_makes_unsure_for_good(runtime: Asked, listed: list[str]):
    runtime.told = known = PodContainers(runtime, UID, fresh=True)
    mine = await sandbox(runtime)
    known.made(mine)
    known.compare([mine])
    assert known.sure
    known.compare(listed)
    assert not known.sure
    assert await ids(known) == await ids(known) == {mine}
    assert runtime.lists == 2


async def test_a_pod_of_an_earlier_life_is_listed(runtime: Asked):
    known = PodContainers(runtime, UID, fresh=False)
    mine = await sandbox(runtime)
    assert await ids(known) == {mine}
    assert runtime.lists == 1


async def test_what_was_seen_is_no_news(runtime: Asked):
    runtime.told = known = PodContainers(runtime, UID, fresh=True)
    mine = await sandbox(runtime)
    known.made(mine)
    assert known.is_news(event(mine, "start"))
    await known.look()
    assert [known.is_news(event(mine, action)) for action in ("create", "start")] == [False, False]
    assert [known.is_news(event(mine, action)) for action in ("die", "oom", "destroy")] == [True, True, True]
    await runtime.stop(mine, 0)
    await known.look()
    assert not known.is_news(event(mine, "die"))
    assert known.is_news(event(mine, "start"))  # by somebody else
    await runtime.remove(mine)
    await known.look()
    assert not known.is_news(event(mine, "destroy"))


async def test_events_during_a_look_are_judged_by_what_it_saw(runtime: Asked):
    runtime.told = known = PodContainers(runtime, UID, fresh=True)
    mine = await sandbox(runtime)
    known.made(mine)
    runtime.events_of_looks = (event(mine, "start"), event(mine, "die"))
    await known.look()
    assert [known.is_news(each) for each in known.meanwhile()] == [False, True]
    assert known.meanwhile() == []
