"""Takes away from a node what was built of environments that are no more, and that none of its pods mounts."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from minik8s.aio import periodic
from minik8s.api.errors import StatusError
from minik8s.api.kinds.environment import Environment, environment_hash
from minik8s.api.kinds.pod import Pod
from minik8s.client.base import Client
from minik8s.clock import Clock, system_clock
from minik8s.faas.environments import plan
from minik8s.log import get_logger

INTERVAL = 1800.0  # seconds between two looks
YOUNG = 600.0  # seconds in which a folder is left alone: its Environment may not be seen everywhere yet
log = get_logger("environments")


async def keep_swept(
    root: Path, client: Client, pods: Callable[[], Iterable[Pod]], clock: Clock = system_clock
) -> None:
    """For ever. `pods`: of this node."""

    async def look() -> None:
        try:
            await sweep(root, client, pods, clock)
        except StatusError as error:
            log.debug("cannot look which environments there are", error=str(error))

    await periodic(INTERVAL, look)


async def sweep(root: Path, client: Client, pods: Callable[[], Iterable[Pod]], clock: Clock = system_clock) -> None:
    old = await asyncio.to_thread(_old_folders, root, clock())
    if not old:
        return
    known = {environment_hash(each.spec) for each in (await client.list(Environment)).items}
    used = {plan.used_by(pod.spec.volumes) for pod in pods()}
    for name in (name for name in old if name not in known | used):
        log.info("environment is not used any more", environment=name)
        await asyncio.to_thread(shutil.rmtree, root / name, ignore_errors=True)


def _old_folders(root: Path, now: float) -> list[str]:
    if not root.is_dir():
        return []
    return sorted(each.name for each in root.iterdir() if each.is_dir() and now - each.stat().st_mtime > YOUNG)
