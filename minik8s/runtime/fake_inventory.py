"""What a fake engine holds: its containers and images, the networks that every Docker Engine has, volumes if given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable

from minik8s.runtime.base import EngineConflict, NoSuchContainer
from minik8s.runtime.docker_json import identity, identity_labels
from minik8s.runtime.fake_exec import FakeContainer
from minik8s.runtime.fake_images import FakeImages
from minik8s.runtime.inventory import (
    EngineContainer,
    EngineImage,
    EngineNetwork,
    EngineVolume,
    Inventory,
    Kind,
    with_users,
)

NETWORKS = {name: EngineNetwork(name, name, driver) for name, driver in (("host", "host"), ("none", "null"))}


class FakeInventory(FakeImages):
    def __init__(self, images: Iterable[str] | None, pull_seconds: float) -> None:
        super().__init__(images, pull_seconds)
        self.volumes: dict[str, EngineVolume] = {}

    @abstractmethod
    def _all(self) -> Iterable[FakeContainer]:
        """Every container."""

    @abstractmethod
    async def start(self, container_id: str) -> None: ...

    @abstractmethod
    async def stop(self, container_id: str, grace: float) -> None: ...

    @abstractmethod
    async def remove(self, container_id: str) -> None: ...

    async def inventory(self, *, sizes: bool = False) -> Inventory:
        self._check("inventory")
        containers = tuple(_shown(container, measured=sizes) for container in self._all())
        images = tuple(EngineImage(image.id, image.names, 0.0, image.size) for image in await self.images())
        return with_users(Inventory(containers, images, tuple(self.volumes.values()), tuple(NETWORKS.values())))

    async def restart(self, container_id: str, grace: float) -> None:
        await self.stop(container_id, grace)
        await self.start(container_id)

    async def discard(self, kind: Kind, id: str) -> None:
        found = {each.id: each for each in getattr(await self.inventory(), kind)}.get(id)
        if found is None:
            raise NoSuchContainer(f"No such {kind.removesuffix('s')}: {id}")
        if isinstance(found, EngineContainer):
            if found.state == "running":
                raise EngineConflict(f"You cannot remove a running container {id}. Stop the container before")
            await self.remove(id)
        elif found.used_by or isinstance(found, EngineNetwork):
            raise EngineConflict(f"{id} is in use by {', '.join(found.used_by) or 'the engine itself'}")
        elif isinstance(found, EngineImage):
            await self.remove_image(id)
        else:
            del self.volumes[id]


def _shown(container: FakeContainer, *, measured: bool) -> EngineContainer:
    info = container.info
    status = "Up" if info.state == "running" else f"Exited ({info.exit_code})" if info.state == "exited" else "Created"
    return EngineContainer(
        id=info.id,
        name=str(identity(container.spec)),
        image=info.image or info.image_id,
        image_id=info.image_id,
        state=info.state,
        status=status,
        created=info.created_at,
        command=" ".join((*getattr(container.spec, "command", ()), *getattr(container.spec, "args", ()))),
        networks={"host" if info.host_network else "none": ""},
        labels=identity_labels(container.spec, "fake"),
        size=0 if measured else None,
    )
