"""How the parts of `DockerRuntime` ask the engine: one request, and the engine's errors as ours."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import IO, Any

import aiohttp

from minik8s.runtime.base import EngineConflict, EngineUnavailable, NoSuchContainer, RuntimeFailure
from minik8s.runtime.docker_streams import Address

_MISSING = re.compile("[Nn]o such (container|image|exec|volume)|^network .* not found")
_UNREACHABLE = (503, 900)  # 900 is aiodocker's for 'no connection'
_CONFLICT = (403, 409)  # 403 is the answer for networks with containers, and for the engine's own


class DockerApi(ABC):
    address: Address
    version: str  # of the engine's API, as it stands in paths: v1.41

    made_images: Mapping[str, Sequence[str]]  # by name: the command that writes it to its output, as `docker save` does

    @abstractmethod
    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        data: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        failure: type[RuntimeFailure] = RuntimeFailure,
        missing: type[RuntimeFailure] = NoSuchContainer,
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """An open answer with a status below 400; else the errors of `failure_of`, also while it is being read."""

    @abstractmethod
    async def json(self, method: str, path: str, query: Mapping[str, str] | None = None, *, body: Any = None) -> Any:
        """What the engine answers; None if that is nothing."""


def failure_of(
    status: int,
    message: str,
    failure: type[RuntimeFailure] = RuntimeFailure,
    missing: type[RuntimeFailure] = NoSuchContainer,
) -> RuntimeFailure:
    """EngineUnavailable, `missing` for what the engine does not have, EngineConflict; `failure` for all else."""
    message = message.strip()
    if status in _UNREACHABLE:
        return EngineUnavailable(message)
    # A start of a container whose program does not exist is answered with 404 too, in runc's words.
    if status == 404 and _MISSING.search(message):
        return missing(message)
    return EngineConflict(message) if status in _CONFLICT and failure is RuntimeFailure else failure(message)


@contextmanager
def reaching() -> Iterator[None]:
    """A connection that fails is EngineUnavailable."""
    try:
        yield
    except (aiohttp.ClientError, ConnectionError) as error:
        raise EngineUnavailable(f"Docker Engine does not answer: {error}") from error


async def chunks(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """The body as it comes."""
    with reaching():
        async for chunk in answer.content.iter_any():
            yield chunk
