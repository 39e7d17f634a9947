"""The agent's API for tests, as its administrator, over TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from minik8s.api.errors import NotFound, StatusError
from minik8s.api.kinds.event import Event
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import is_true
from minik8s.client.base import Client
from minik8s.client.http import HttpTransport
from tests.agent import Agent, Failed
from tests.images import BUSYBOX
from tests.patience import patience

Json = dict[str, Any]
TURN = 0.05  # seconds between looks


def admin_context(agent: Agent) -> ssl.SSLContext:
    """TLS as the administrator of the agent's cluster."""
    config = json.loads(agent.kubeconfig.read_text())
    user, cluster = config["users"][0]["user"], config["clusters"][0]["cluster"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    with tempfile.NamedTemporaryFile() as pair:
        pair.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
        pair.flush()
        context.load_cert_chain(pair.name)
    return context


@asynccontextmanager
async def admin(agent: Agent) -> AsyncIterator[Client]:
    async with HttpTransport(f"https://{agent.address}:{agent.port}", admin_context(agent)) as transport:
        yield Client(transport)


def pod(name: str, *containers: Json, **spec: Any) -> Json:
    """A pod of busybox; without `containers`, one that sleeps."""
    listed = [{"name": "app", "image": BUSYBOX, **one} for one in containers or ({"command": ["sleep", "100000"]},)]
    defaults = {"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False}
    return {"metadata": {"name": name}, "spec": {"containers": listed, **defaults, **spec}}


def sh(script: str, **more: Any) -> Json:
    return {"command": ["sh", "-c", script], **more}


async def until(
    client: Client, name: str, test: Callable[[Pod], Any], *, seconds: float = 30, namespace: str = "default"
) -> Pod:
    """The pod once `test` holds of it; while the API is away, it is asked again."""
    found: Pod | None = None
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience(seconds)
    while loop.time() < deadline:
        try:
            found = await client.get(Pod, name, namespace)
            if test(found):
                return found
        except NotFound:
            found = None
        except StatusError as error:
            if error.code < 500:
                raise
        await asyncio.sleep(TURN)
    told = "\n".join(await events(client, name, namespace))
    raise Failed(f"{name} did not get there within {seconds:.0f} s: {found and found.status}\n{told}")


async def ready(client: Client, name: str, *, seconds: float = 30) -> Pod:
    return await until(client, name, is_ready, seconds=seconds)


async def gone(client: Client, *names: str, seconds: float = 30, namespace: str = "default") -> None:
    """When the API no longer has these pods (none named: any)."""
    left: set[str] = set()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience(seconds)
    while loop.time() < deadline:
        left = {one.metadata.name for one in (await client.list(Pod, namespace)).items}
        if not (left & set(names) if names else left):
            return
        await asyncio.sleep(TURN)
    raise Failed(f"pods are left after {seconds:.0f} s: {sorted(left & set(names) if names else left)}")


async def events(client: Client, name: str, namespace: str = "default") -> list[str]:
    """`TYPE REASON MESSAGE` of an object's events."""
    found = (await client.list(Event, namespace)).items
    return [f"{e.type} {e.reason} {e.message}" for e in found if e.involvedObject.name == name]


def is_ready(pod: Pod) -> bool:
    return is_true(pod.status.conditions, "Ready")


def state(pod: Pod, container: str = "app") -> Any:
    """The container's status."""
    return next((one for one in pod.status.containerStatuses if one.name == container), None)


def waits(pod: Pod, container: str = "app") -> str:
    """Why the container waits; "" if it does not."""
    one = state(pod, container)
    return one.state.waiting.reason if one is not None and one.state.waiting is not None else ""
