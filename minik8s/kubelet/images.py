"""Images for containers: pulled by policy, one pull at a time for each image, with back-off after failures.

Whether an image is present is remembered for a minute, so that a pod whose image is there starts without asking.
Which images were pulled by this agent is kept in a file: the garbage collector removes no others.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from minik8s.api.kinds.pod import Container
from minik8s.api.kinds.secret import Secret
from minik8s.clock import Clock
from minik8s.runtime.base import ImageInfo, ImagePullFailed, InvalidImageName, RegistryAuth, Runtime, RuntimeFailure

FIRST_BACKOFF = 10.0  # seconds; kubelet's image back-off, doubling to 5 min
LAST_BACKOFF = 300.0
PRESENCE_TTL = 60.0  # seconds for which "it is present" is believed


class ImageNeverPulled(RuntimeFailure):
    reason = "ErrImageNeverPull"


class ImageBackOff(RuntimeFailure):
    """A pull failed a moment ago; `retry_at` says when the next attempt may be made (Unix seconds)."""

    reason = "ImagePullBackOff"

    def __init__(self, message: str, retry_at: float) -> None:
        super().__init__(message)
        self.retry_at = retry_at


class Tell(Protocol):
    """Writes an event about a container: `tell(type, reason, message)`."""

    def __call__(self, type: str, reason: str, message: str, /) -> None: ...


class _Failed(NamedTuple):
    delay: float
    retry_at: float


class Images:
    """`ensure` makes a container's image present and says what it is."""

    def __init__(self, runtime: Runtime, clock: Clock, ledger: Path | None) -> None:
        self._runtime = runtime
        self._clock = clock
        self._ledger = ledger
        self._known: dict[str, tuple[float, ImageInfo]] = {}
        self._failed: dict[str, _Failed] = {}
        self._pulls: dict[str, asyncio.Lock] = {}
        self.pulled: dict[str, float] = _read_ledger(ledger)  # image id -> when it was last used here

    async def ensure(self, container: Container, auth: Sequence[RegistryAuth], tell: Tell) -> ImageInfo:
        """Raises ImagePullFailed, InvalidImageName, ImageNeverPulled, ImageBackOff."""
        reference, policy = container.image, container.imagePullPolicy or "IfNotPresent"
        present = None if policy == "Always" else await self.present(reference)
        if present is not None:
            tell("Normal", "Pulled", f'Container image "{reference}" already present on machine')
            return self._used(present)
        if policy == "Never":
            message = f'Container image "{reference}" is not present with pull policy of Never'
            tell("Warning", "ErrImageNeverPull", message)
            raise ImageNeverPulled(message)
        failed = self._failed.get(reference)
        if failed is not None and self._clock() < failed.retry_at:
            message = f'Back-off pulling image "{reference}"'
            tell("Normal", "BackOff", message)
            raise ImageBackOff(message, failed.retry_at)
        lock = self._pulls.setdefault(reference, asyncio.Lock())
        waited = lock.locked()
        async with lock:
            # Somebody else may just have pulled it; "Always" asks the registry again only in its own turn.
            present = await self.present(reference) if waited else None
            return self._used(present or await self._pull(reference, auth, tell))

    async def present(self, reference: str) -> ImageInfo | None:
        known = self._known.get(reference)
        if known is not None and self._clock() - known[0] < PRESENCE_TTL:
            return known[1]
        image = await self._runtime.image(reference)
        if image is None:
            self._known.pop(reference, None)
        else:
            self._known[reference] = (self._clock(), image)
        return image

    def forget(self, reference: str) -> None:
        """The engine said that it is not there after all."""
        self._known.pop(reference, None)

    async def _pull(self, reference: str, auth: Sequence[RegistryAuth], tell: Tell) -> ImageInfo:
        tell("Normal", "Pulling", f'Pulling image "{reference}"')
        begun = self._clock()
        try:
            image = await self._runtime.pull(reference, auth)
        except (ImagePullFailed, InvalidImageName) as error:
            last = self._failed.get(reference)
            delay = min(last.delay * 2, LAST_BACKOFF) if last is not None else FIRST_BACKOFF
            self._failed[reference] = _Failed(delay, self._clock() + delay)
            tell("Warning", "Failed", f'Failed to pull image "{reference}": {error}')
            tell("Warning", "Failed", f"Error: {error.reason}")
            raise
        self._failed.pop(reference, None)
        self._known[reference] = (self._clock(), image)
        self.pulled[image.id] = self._clock()
        if self._ledger is not None:
            await asyncio.to_thread(self.save)
        seconds = self._clock() - begun
        text = f'Successfully pulled image "{reference}" in {seconds:.3g}s. Image size: {image.size} bytes.'
        tell("Normal", "Pulled", text)
        return image

    def _used(self, image: ImageInfo) -> ImageInfo:
        if image.id in self.pulled:
            self.pulled[image.id] = self._clock()
        return image

    def collected(self, image: ImageInfo) -> None:
        """It was removed to free disk space."""
        self.pulled.pop(image.id, None)
        self._known = {name: known for name, known in self._known.items() if known[1].id != image.id}

    def save(self) -> None:
        if self._ledger is None:
            return
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._ledger.with_suffix(".new")
        fresh.write_text(json.dumps(self.pulled))
        os.replace(fresh, self._ledger)


def _read_ledger(path: Path | None) -> dict[str, float]:
    """The images that we pulled. A broken file costs nothing but that these images are not collected."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, float]) if path is not None else {}
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def pull_auth(secrets: Sequence[Secret]) -> list[RegistryAuth]:
    """Credentials of kubernetes.io/dockerconfigjson and dockercfg secrets; what cannot be read is left out."""
    found: list[RegistryAuth] = []
    for secret in secrets:
        config = _decode(secret.data.get(".dockerconfigjson", ""))
        auths = config.get("auths", {}) if config else _decode(secret.data.get(".dockercfg", ""))
        if isinstance(auths, Mapping):
            found += [auth for server, entry in auths.items() if (auth := _auth(str(server), entry)) is not None]
    return found


def _decode(text: str) -> dict[str, Any]:
    try:
        document = json.loads(base64.b64decode(text)) if text else {}
    except (ValueError, binascii.Error):
        return {}
    return document if isinstance(document, dict) else {}


def _auth(server: str, entry: Any) -> RegistryAuth | None:
    if not isinstance(entry, Mapping):
        return None
    username, password = str(entry.get("username", "")), str(entry.get("password", ""))
    if not username and entry.get("auth"):
        try:
            username, _, password = base64.b64decode(str(entry["auth"])).decode().partition(":")
        except (ValueError, binascii.Error):
            return None
    return RegistryAuth(username, password, server) if username else None
