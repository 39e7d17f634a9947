"""What a GpuJob has besides its object: `source`, into which its archive is put, and `results`, which are read.

GET  …/gpujobs/NAME/source                 {"sha256", "size", "received"}
    PUT  …/gpujobs/NAME/source?offset=N        a chunk of the archive that spec.source.archive announces
    GET  …/gpujobs/NAME/results                an index: {"items": [{"path", "size"}]}
    GET  …/gpujobs/NAME/results?format=zip     all of it
    GET  …/gpujobs/NAME/results/PATH?offset=N  a file, from a byte on; while the job runs it grows, and is fetched

Who may is asked before, as for every subresource: `gpujobs/source`, `gpujobs/results`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from minik8s.api.errors import BadRequest, Conflict, NotFound
from minik8s.api.kinds.gpujob import Archive, GpuJob
from minik8s.apiserver.handler import Answer
from minik8s.apiserver.request import ApiResponse, Frames, json_response
from minik8s.apiserver.uploads import Blobs
from minik8s.apiserver.verbs import Call
from minik8s.client.base import Client
from minik8s.hpc.results import Results

BLOCK = 256 * 1024
# A browser must neither guess what a file is nor run it.
SAFE = {"x-content-type-options": "nosniff", "content-security-policy": "sandbox", "cache-control": "no-store"}


class JobFiles:
    """Both stores of files, below `root`, and the answers that the API server gives of them."""

    def __init__(self, root: Path, client: Client) -> None:
        self.blobs = Blobs(root / "blobs")
        self.results = Results(root / "results")
        self.packed = root / "packed"
        self.source_arrived: Callable[[str, str], None] = lambda namespace, name: None
        self._client = client

    def answers(self) -> Mapping[tuple[str, str], Answer]:
        return {
            ("source", "get"): self._source,
            ("source", "update"): self._put_source,
            ("results", "get"): self._read,
        }

    async def _job(self, call: Call) -> GpuJob:
        return await self._client.get(GpuJob, call.info.name, call.info.namespace)

    async def _archive(self, call: Call) -> Archive:
        archive = (await self._job(call)).spec.source.archive
        if archive is None:
            raise Conflict("this job's sources are no archive: spec.source.archive does not announce one")
        return archive

    def _received(self, archive: Archive, received: int) -> ApiResponse:
        return json_response({"sha256": archive.sha256, "size": archive.size, "received": received})

    async def _source(self, call: Call) -> ApiResponse:
        archive = await self._archive(call)
        return self._received(archive, self.blobs.received(call.info.namespace, archive))

    async def _put_source(self, call: Call) -> ApiResponse:
        archive = await self._archive(call)
        offset = _number(call, "offset")
        space, name = call.info.namespace, call.info.name
        received = await asyncio.to_thread(self.blobs.append, space, archive, offset, call.request.body)
        if received == archive.size:
            self.source_arrived(space, name)
        return self._received(archive, received)

    async def _read(self, call: Call) -> ApiResponse:
        job, path = await self._job(call), call.info.rest
        uid = job.metadata.uid
        if path:
            self.results.read(uid)
            return self._file(call, uid, path)
        if call.query.get("format") == "zip":
            packed = await asyncio.to_thread(self.results.zipped, uid)
            name = {"content-disposition": f'attachment; filename="{job.metadata.name}.zip"'}
            return ApiResponse(200, b"", "application/zip", SAFE | name, _blocks(packed))
        files = [{"path": each.path, "size": each.size} for each in self.results.index(uid)]
        return json_response({"kind": "GpuJobResults", "apiVersion": "hpc.minik8s.io/v1", "items": files})

    def _file(self, call: Call, uid: str, path: str) -> ApiResponse:
        found = self.results.file(uid, path)
        if found is None:
            raise NotFound(f'the GpuJob "{call.info.name}" has no result "{path[:200]}" (yet)')
        file = found.open("rb")
        file.seek(_number(call, "offset"))
        return ApiResponse(200, b"", "application/octet-stream", SAFE, _blocks(file))


def _number(call: Call, name: str) -> int:
    text = call.query.get(name, "0")
    if not text.isascii() or not text.isdecimal() or len(text) > 15:
        raise BadRequest(f"{name}={text[:40]}: write a number of bytes")
    return int(text)


async def _blocks(file: IO[bytes]) -> Frames:
    with file:
        while block := await asyncio.to_thread(file.read, BLOCK):
            sent: Sequence[bytes] = (block,)
            yield sent
