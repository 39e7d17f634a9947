"""Image references, `[registry/]name[:tag][@digest]`, by the grammar of the distribution project. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from minik8s.runtime.base import InvalidImageName

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<name>(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*)"
    r"(?::(?P<tag>[\w][\w.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)


class Reference(NamedTuple):
    name: str  # as written, with the registry if there is one
    tag: str  # "" only with a digest
    digest: str

    @property
    def registry(self) -> str:
        """Host of the registry; Docker's own is `docker.io`."""
        first, slash, _ = self.name.partition("/")
        return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"

    @property
    def version(self) -> str:
        """What Docker's `tag` parameter of a pull takes: the digest, else the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def parse_reference(text: str) -> Reference:
    """The parts; without tag and digest the tag is `latest`. InvalidImageName in kubelet's words."""
    found = _REFERENCE.fullmatch(text)
    if found is None or len(found["name"]) > 255:
        reason = "invalid reference format"
        if text != text.lower() and _REFERENCE.fullmatch(text.lower()):
            reason += ": repository name must be lowercase"
        raise InvalidImageName(
            f'Failed to apply default image tag "{text}": couldn\'t parse image name "{text}": {reason}'
        )
    digest = found["digest"] or ""
    return Reference(found["name"], found["tag"] or ("" if digest else "latest"), digest)
