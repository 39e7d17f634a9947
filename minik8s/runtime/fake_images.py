"""The images of a fake engine: some present, or all; pulls that take their time and fail when they are told to."""

from __future__ import annotations

import asyncio
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from minik8s.runtime.base import ImageInfo, ImagePullFailed, RegistryAuth
from minik8s.runtime.reference import parse_reference


class FakeImages(ABC):
    """`images` are present from the start; None: every image is.

    Pulls take `pull_seconds` and succeed, but for `fake/missing` and what `missing_images` holds.
    """

    def __init__(self, images: Iterable[str] | None, pull_seconds: float) -> None:
        self._images: dict[str, ImageInfo] = {}
        self._any_image = images is None
        self.pull_seconds = pull_seconds
        self.missing_images: set[str] = set()
        for reference in images or ():
            self.add_image(reference)

    @abstractmethod
    def _check(self, method: str) -> None:
        """Raise what the engine is to fail with."""

    @abstractmethod
    def _uses(self, image_id: str) -> bool:
        """Whether a container has it."""

    def add_image(self, reference: str) -> ImageInfo:
        name = str(parse_reference(reference))
        image = ImageInfo(f"sha256:{hashlib.sha256(name.encode()).hexdigest()}", (name,), 5 << 20)
        self._images[image.id] = image
        return image

    async def image(self, reference: str) -> ImageInfo | None:
        self._check("image")
        if reference in self._images:
            return self._images[reference]
        name = str(parse_reference(reference))
        for image in self._images.values():
            if name in image.names:
                return image
        return self.add_image(reference) if self._any_image and not self._is_missing(reference) else None

    def _is_missing(self, reference: str) -> bool:
        return reference in self.missing_images or parse_reference(reference).name.endswith("fake/missing")

    async def images(self) -> list[ImageInfo]:
        self._check("images")
        return list(self._images.values())

    async def pull(self, reference: str, auth: Sequence[RegistryAuth] = ()) -> ImageInfo:
        self._check("pull")
        parsed = parse_reference(reference)
        await asyncio.sleep(self.pull_seconds)
        if self._is_missing(reference):
            raise ImagePullFailed(f"manifest for {parsed} not found: manifest unknown: manifest unknown")
        return self.add_image(reference)

    async def remove_image(self, image_id: str) -> int:
        self._check("remove_image")
        if self._uses(image_id):
            return 0
        image = self._images.pop(image_id, None)
        return image.size if image else 0
