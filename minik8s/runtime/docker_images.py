"""Images on Docker Engine: which are there, pulling with credentials, removing, and the pause image of our own."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import Sequence
from contextlib import suppress

from minik8s.runtime.base import EngineConflict, ImageInfo, ImagePullFailed, NoSuchContainer, RegistryAuth
from minik8s.runtime.docker_api import DockerApi
from minik8s.runtime.docker_json import image_references
from minik8s.runtime.docker_streams import json_lines
from minik8s.runtime.pause import layer
from minik8s.runtime.reference import parse_reference


class DockerImages(DockerApi):
    async def image(self, reference: str) -> ImageInfo | None:
        parse_reference(reference)  # the engine's answer to what is none has no kind of its own
        try:
            answer = await self.json("GET", f"images/{reference}/json")
        except NoSuchContainer:
            return None
        config = answer.get("Config") or {}
        return ImageInfo(
            id=answer["Id"],
            names=(*image_references(answer.get("RepoTags")), *image_references(answer.get("RepoDigests"))),
            size=answer["Size"],
            user=config.get("User") or "",
            entrypoint=tuple(config.get("Entrypoint") or ()),
            command=tuple(config.get("Cmd") or ()),
            stop_signal=config.get("StopSignal") or "",
        )

    async def images(self) -> list[ImageInfo]:
        return [
            ImageInfo(i["Id"], (*image_references(i["RepoTags"]), *image_references(i["RepoDigests"])), i["Size"])
            for i in await self.json("GET", "images/json")
        ]

    async def pull(self, reference: str, auth: Sequence[RegistryAuth] = ()) -> ImageInfo:
        wanted = parse_reference(reference)
        attempts: list[RegistryAuth | None] = [*auth] or [None]
        if str(wanted) in self.made_images:
            await self._make(self.made_images[str(wanted)])
            attempts = []
        for number, credentials in enumerate(attempts, 1):
            try:
                await self._pull(wanted.name, wanted.version, credentials)
                break
            except ImagePullFailed:
                if number == len(attempts):
                    raise
        image = await self.image(str(wanted))
        if image is None and str(wanted) in self.made_images:
            raise ImagePullFailed(f"another image than {reference} was made: minik8s has been changed since this agent "
                                  "was started: restart it")  # fmt: skip
        if image is None:
            raise ImagePullFailed(f"the engine pulled {reference} and does not have it")
        return image

    async def _make(self, command: Sequence[str]) -> None:
        """In a process of its own: it takes seconds, and memory that the agent would keep."""
        with tempfile.TemporaryFile() as archive:
            process = await asyncio.create_subprocess_exec(*command, stdout=archive, stderr=PIPE)
            try:
                _, words = await process.communicate()
            finally:
                if process.returncode is None:
                    process.kill()
            if process.returncode:
                raise ImagePullFailed(f"the image cannot be made: {words.decode(errors='replace').strip()[-1000:]}")
            archive.seek(0)
            content = {"Content-Type": "application/x-tar"}
            async with self.request(
                "POST", "images/load", {"quiet": "1"}, data=archive, headers=content, failure=ImagePullFailed
            ) as answer:
                async for progress in json_lines(answer.content.iter_any()):
                    if "error" in progress:
                        raise ImagePullFailed(progress["error"])

    async def _pull(self, name: str, version: str, credentials: RegistryAuth | None) -> None:
        headers = {}
        if credentials is not None:
            said = {"username": credentials.username, "password": credentials.password}
            text = json.dumps(said | {"serveraddress": credentials.server})
            headers["X-Registry-Auth"] = base64.urlsafe_b64encode(text.encode()).decode()
        query = {"fromImage": name, "tag": version}
        async with self.request(
            "POST", "images/create", query, headers=headers, failure=ImagePullFailed, missing=ImagePullFailed
        ) as answer:
            async for progress in json_lines(answer.content.iter_any()):
                if "error" in progress:
                    raise ImagePullFailed(progress["error"])

    async def remove_image(self, image_id: str) -> int:
        image = await self.image(image_id)
        if image is None:
            return 0
        query = {"all": "1", "filters": json.dumps({"ancestor": [image.id]})}
        if await self.json("GET", "containers/json", query):
            return 0
        freed = 0
        for name in image.names or (image.id,):
            with suppress(NoSuchContainer, EngineConflict):  # gone with the name before it, or used since we looked
                done = await self.json("DELETE", f"images/{name}")
                freed = image.size if any("Deleted" in step for step in done) else freed
        return freed

    async def ensure_pause_image(self, name: str, architecture: str) -> None:
        """The image of the sandboxes, made from the project's own bytes if it is not there."""
        if await self.image(name) is not None:
            return
        repository, tag = name.split(":")
        query = {"fromSrc": "-", "repo": repository, "tag": tag, "changes": 'ENTRYPOINT ["/pause"]'}
        content = {"Content-Type": "application/x-tar"}
        async with self.request("POST", "images/create", query, data=layer(architecture), headers=content):
            pass
