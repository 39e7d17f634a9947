"""What Docker Engine holds, and taking away what nobody uses: see `inventory.py`. The readers of its JSON are pure."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence

from minik8s.runtime.base import EngineConflict, NoSuchContainer
from minik8s.runtime.docker_images import DockerImages
from minik8s.runtime.docker_json import Json, image_references, seconds
from minik8s.runtime.inventory import (
    EngineContainer,
    EngineImage,
    EngineNetwork,
    EngineVolume,
    Inventory,
    Kind,
    with_users,
)


class DockerInventory(DockerImages):
    async def inventory(self, *, sizes: bool = False) -> Inventory:
        asked = [("containers/json", {"all": "1"}), ("images/json", {}), ("volumes", {}), ("networks", {})]
        usage = self.json("GET", "system/df") if sizes else _nothing()
        measured, containers, images, volumes, networks = await asyncio.gather(
            usage, *(self.json("GET", path, query) for path, query in asked)
        )
        return with_users(
            Inventory(
                containers=read_containers(containers, measured),
                images=read_images(images),
                volumes=read_volumes(volumes, measured),
                networks=read_networks(networks),
            )
        )

    async def restart(self, container_id: str, grace: float) -> None:
        await self.json("POST", f"containers/{container_id}/restart", {"t": str(math.ceil(grace))})

    async def discard(self, kind: Kind, id: str) -> None:
        if kind == "containers":
            await self.json("DELETE", f"containers/{id}", {"v": "1"})
        elif kind != "images":
            await self.json("DELETE", f"{kind}/{id}")
        elif (image := await self.image(id)) is None:
            raise NoSuchContainer(f"No such image: {id}")
        elif not await self.remove_image(id):
            raise EngineConflict(f"image {(image.names or (id,))[0]} is in use by a container or by another image")


async def _nothing() -> Json:
    return {}


def read_containers(listed: Sequence[Json], usage: Json) -> tuple[EngineContainer, ...]:
    """From `GET /containers/json`, and sizes from `GET /system/df`."""
    sizes = {each["Id"]: each.get("SizeRw", 0) for each in usage.get("Containers") or ()}
    return tuple(
        EngineContainer(
            id=each["Id"],
            name=each["Names"][0].removeprefix("/") if each["Names"] else each["Id"][:12],
            image=each["Image"],
            image_id=each["ImageID"],
            state=each["State"],
            status=each["Status"],
            created=float(each["Created"]),
            command=each["Command"],
            ports=tuple(sorted({_port(port) for port in each.get("Ports") or ()})),
            networks={
                name: facts.get("IPAddress", "")
                for name, facts in (each.get("NetworkSettings", {}).get("Networks") or {}).items()
            },
            volumes=tuple(mount["Name"] for mount in each.get("Mounts") or () if mount["Type"] == "volume"),
            labels=each.get("Labels") or {},
            size=sizes.get(each["Id"]),
        )
        for each in listed
    )


def _port(port: Mapping[str, object]) -> str:
    inside = f"{port['PrivatePort']}/{port['Type']}"
    return f"{port.get('IP', '')}:{port['PublicPort']}→{inside}" if port.get("PublicPort") else inside


def read_images(listed: Sequence[Json]) -> tuple[EngineImage, ...]:
    """From `GET /images/json`."""
    return tuple(
        EngineImage(
            id=each["Id"],
            names=(*image_references(each.get("RepoTags")), *image_references(each.get("RepoDigests"))),
            created=float(each["Created"]),
            size=each["Size"],
            labels=each.get("Labels") or {},
        )
        for each in listed
    )


def read_volumes(answer: Json, usage: Json) -> tuple[EngineVolume, ...]:
    """From `GET /volumes`; a driver that cannot measure a volume says -1."""
    sizes = {each["Name"]: (each.get("UsageData") or {}).get("Size", -1) for each in usage.get("Volumes") or ()}
    return tuple(
        EngineVolume(
            id=each["Name"],
            driver=each["Driver"],
            path=each["Mountpoint"],
            created=seconds(each.get("CreatedAt", "")),
            size=size if (size := sizes.get(each["Name"], -1)) >= 0 else None,
            labels=each.get("Labels") or {},
        )
        for each in answer.get("Volumes") or ()
    )


def read_networks(listed: Sequence[Json]) -> tuple[EngineNetwork, ...]:
    """From `GET /networks`."""
    return tuple(
        EngineNetwork(
            id=each["Id"],
            name=each["Name"],
            driver=each["Driver"],
            subnets=tuple(part["Subnet"] for part in each["IPAM"].get("Config") or () if part.get("Subnet")),
            created=seconds(each["Created"]),
            internal=each["Internal"],
            labels=each.get("Labels") or {},
        )
        for each in listed
    )
