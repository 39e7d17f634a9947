"""All that a container engine holds, whoever made it, as people look at it: containers, images, volumes, networks.

Environments are left out: they hold secrets. Times are Unix seconds, sizes bytes; a size that nobody asked for is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Kind = Literal["containers", "images", "volumes", "networks"]
KINDS: tuple[Kind, ...] = ("containers", "images", "volumes", "networks")


@dataclass(frozen=True, slots=True)
class EngineContainer:
    id: str
    name: str
    image: str  # as it was asked for
    image_id: str
    state: str  # created | running | paused | restarting | removing | exited | dead
    status: str = ""  # the engine's own words: Up 5 minutes, Exited (1) 2 hours ago
    created: float = 0.0
    command: str = ""
    ports: tuple[str, ...] = ()  # 80/tcp, 0.0.0.0:8080→80/tcp
    networks: Mapping[str, str] = field(default_factory=dict)  # name → address
    volumes: tuple[str, ...] = ()  # names of the engine's own volumes
    labels: Mapping[str, str] = field(default_factory=dict)
    size: int | None = None  # of the files that it has written


@dataclass(frozen=True, slots=True)
class EngineImage:
    id: str
    names: tuple[str, ...]  # tags and digests
    created: float = 0.0
    size: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    used_by: tuple[str, ...] = ()  # names of containers


@dataclass(frozen=True, slots=True)
class EngineVolume:
    id: str  # its name
    driver: str
    path: str  # on the host
    created: float = 0.0
    size: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    used_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineNetwork:
    id: str
    name: str
    driver: str
    subnets: tuple[str, ...] = ()
    created: float = 0.0
    internal: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    used_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    containers: tuple[EngineContainer, ...] = ()
    images: tuple[EngineImage, ...] = ()
    volumes: tuple[EngineVolume, ...] = ()
    networks: tuple[EngineNetwork, ...] = ()


def with_users(found: Inventory) -> Inventory:
    """The same, where images, volumes and networks tell which containers use them. Pure."""

    def users(chosen: Sequence[EngineContainer]) -> tuple[str, ...]:
        return tuple(sorted(container.name for container in chosen))

    containers = found.containers
    return replace(
        found,
        images=tuple(
            replace(image, used_by=users([c for c in containers if c.image_id == image.id])) for image in found.images
        ),
        volumes=tuple(
            replace(volume, used_by=users([c for c in containers if volume.id in c.volumes]))
            for volume in found.volumes
        ),
        networks=tuple(
            replace(network, used_by=users([c for c in containers if network.name in c.networks]))
            for network in found.networks
        ),
    )
