"""The scheme finds a kind's row by type, by kind or by path; it is built from one list and never changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from minik8s.api.kinds import RESOURCES
from minik8s.api.resource import Resource


class Scheme:
    """Look-up tables over a list of rows. A custom resource's row is added with `add` and removed with `remove`."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self.resources: list[Resource] = []
        self._by_type: dict[type[Any], Resource] = {}
        self._by_kind: dict[tuple[str, str], Resource] = {}
        self._by_plural: dict[tuple[str, str, str], Resource] = {}
        for resource in resources:
            self.add(resource)

    def add(self, resource: Resource) -> None:
        self.resources.append(resource)
        self._by_type[resource.type] = resource
        for group, version in self._versions(resource):
            self._by_kind[f"{group}/{version}" if group else version, resource.kind] = resource
            self._by_plural[group, version, resource.plural] = resource

    def remove(self, resource: Resource) -> None:
        self.resources.remove(resource)
        self._by_type.pop(resource.type, None)
        for group, version in self._versions(resource):
            self._by_kind.pop((f"{group}/{version}" if group else version, resource.kind), None)
            self._by_plural.pop((group, version, resource.plural), None)

    @staticmethod
    def _versions(resource: Resource) -> list[tuple[str, str]]:
        return [(resource.group, resource.version), *((alias.group, alias.version) for alias in resource.aliases)]

    def of(self, type: type[Any]) -> Resource:
        """The row of a struct type; KeyError for a type that is not registered (a programming error)."""
        return self._by_type[type]

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        return self._by_kind.get((api_version, kind))

    def by_plural(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_plural.get((group, version, plural))


SCHEME = Scheme(RESOURCES)
