"""What a GpuJob has besides its object: `source`, into which its archive is put, and `results`, which are read.

GET  …/gpujobs/NAME/source                 {"sha256", "size", "received"}
    GET  …/gpujobs/NAME/source?content=true&offset=N  the archive's bytes from there on, CHUNK at most
    PUT  …/gpujobs/NAME/source?offset=N        a chunk of the archive that spec.source.archive announces
    GET  …/gpujobs/NAME/results                an index: {"items": [{"path", "size"}], "watched": somebody reads}
    GET  …/gpujobs/NAME/results?format=zip     all of it
    GET  …/gpujobs/NAME/results/PATH?offset=N  a file, from a byte on; while the job runs it grows, and is fetched
    PUT  …/gpujobs/NAME/results/PATH?offset=N[&of=SIZE]  more of a file that grows (offset 0 begins it anew), or a piece
                                               of one of SIZE bytes, which is there once it is whole

Who may is asked before, as for every subresource: `gpujobs/source`, `gpujobs/results`. Results are written by
nobody but the pod that drives the job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from minik8s.api.errors import BadRequest, Conflict, Forbidden, InternalError, NotFound, RequestEntityTooLarge
from minik8s.api.kinds.gpujob import RUNNING, TERMINAL, Archive, GpuJob
from minik8s.api.kinds.hpccluster import SIDECAR
from minik8s.apiserver.handler import Answer
from minik8s.apiserver.request import ApiResponse, Frames, json_response
from minik8s.apiserver.uploads import Blobs
from minik8s.apiserver.verbs import Call
from minik8s.client.base import Client
from minik8s.hpc.driver_pod import user_of
from minik8s.hpc.results import CHUNK, Full, Results
from minik8s.hpc.sources import BadSource

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
            ("results", "update"): self._write,
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
        archive, space = await self._archive(call), call.info.namespace
        received = self.blobs.received(space, archive)
        if call.query.get("content") != "true":
            return self._received(archive, received)
        if received < archive.size:
            raise Conflict("the archive is not here yet, or not all of it", details={"received": received})
        data = await asyncio.to_thread(_piece, self.blobs.path(space, archive), _number(call, "offset"))
        return ApiResponse(200, data, "application/octet-stream", SAFE)

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
        about = {"kind": "GpuJobResults", "apiVersion": "hpc.minik8s.io/v1"}
        return json_response({**about, "items": files, "watched": self.results.has_reader(uid)})

    async def _write(self, call: Call) -> ApiResponse:
        job, path = await self._job(call), call.info.rest
        if job.status.driver != SIDECAR or call.user.name != user_of(job):
            raise Forbidden(f'the results of the GpuJob "{job.metadata.name}" are written by nobody but its driver')
        if job.status.phase in TERMINAL:
            raise Conflict(f"the job is {job.status.phase}: its results stay as they are")
        size = _number(call, "of") if "of" in call.query else None
        if size is None and job.status.phase != RUNNING:
            raise Conflict(f"the job is {job.status.phase}: its files do not grow")
        offset, data = _number(call, "offset"), call.request.body
        try:
            received = await asyncio.to_thread(self.results.write, job.metadata.uid, path, offset, data, size)
        except BadSource as error:
            raise BadRequest(f"{path[:200]!r} is no name of a result: {error}") from None
        except Full as error:
            raise RequestEntityTooLarge(str(error)) from None
        except IsADirectoryError:
            raise BadRequest(f"{path[:200]!r} is a folder of results") from None
        except OSError as error:
            raise InternalError(f"this master cannot keep the file: {error.strerror}") from None
        return json_response({"path": path, "received": received})

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


def _piece(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK)


async def _blocks(file: IO[bytes]) -> Frames:
    with file:
        while block := await asyncio.to_thread(file.read, BLOCK):
            sent: Sequence[bytes] = (block,)
            yield sent
