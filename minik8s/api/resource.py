"""One row per kind: the single source of truth that routes, discovery, storage, tables, OpenAPI and clients read.

Adding a kind is one file in `api/kinds/` that ends in a `Resource` row, and one line in `api/kinds/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minik8s.api.errors import Cause

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`. `cell` gets the stored object and the time (Unix seconds) and returns a JSON scalar.

    `type` is `string`, `integer`, `number`, `boolean` or `date`; columns with `priority` > 0 are shown by `-o wide`.
    """

    name: str
    cell: Callable[[Json, float], Any]
    type: str = "string"
    format: str = ""
    description: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """Where the `scale` subresource finds its numbers, as dotted paths (CustomResourceDefinition's own words)."""

    specReplicasPath: str = "spec.replicas"
    statusReplicasPath: str = "status.replicas"
    labelSelectorPath: str = "spec.selector"  # a LabelSelector or a map of labels


def no_defaults(obj: Json) -> None:
    """A kind without defaults."""


def always_valid(obj: Json, old: Json | None) -> list[Cause]:
    """A kind whose schema says all there is to say."""
    return []


def keep(obj: Json, old: Json | None) -> None:
    """A kind whose spec is stored as it came."""


@dataclass(frozen=True, slots=True)
class Resource:
    """What the API machinery must know of a kind.

    default:  fills in defaults, in place, on the way in.
    validate: the faults of `obj`; `old` is the stored object on update (immutability), None on create.
    prepare:  the kind's strategy, in place, before validation: on create `old` is None (set what the server owns,
              e.g. a Pod's `status.phase`), on update it carries over what a client may not change.
    selectable: field selector name -> value of an object, besides `metadata.name` and `metadata.namespace`.
    definition: name of the kind's definition in the schema file, e.g. `io.k8s.api.core.v1.Pod`.
    spec_generation: whether `metadata.generation` counts changes of everything but metadata and status.
    aliases: further (group, version) under which the same objects are served (`convert` maps between them).
    """

    kind: str
    plural: str
    type: type[Any]
    definition: str
    group: str = ""
    version: str = "v1"
    singular: str = ""
    shortNames: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    subresources: frozenset[str] = frozenset()
    scale: Scale | None = None
    columns: tuple[Column, ...] = ()
    default: Callable[[Json], None] = no_defaults
    validate: Callable[[Json, Json | None], list[Cause]] = always_valid
    prepare: Callable[[Json, Json | None], None] = keep
    selectable: Mapping[str, Callable[[Json], str]] = field(default_factory=dict)
    spec_generation: bool = True
    verbs: tuple[str, ...] = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
    aliases: tuple[Alias, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        """`deployments.apps`, `pods`: how messages, storage keys and RBAC call it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def prefix(self) -> str:
        """Storage keys begin with this: `/pods/`, `/deployments.apps/`."""
        return f"/{self.name}/"

    def key(self, namespace: str | None, name: str) -> str:
        """`/pods/default/web-0`, `/nodes/n1`."""
        return f"/{self.name}/{namespace}/{name}" if self.namespaced else f"/{self.name}/{name}"

    def base_path(self, namespace: str | None = None) -> str:
        """`/api/v1/namespaces/default/pods`, `/apis/apps/v1/deployments`: where the collection is served."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return (
            f"{root}/namespaces/{namespace}/{self.plural}" if self.namespaced and namespace else f"{root}/{self.plural}"
        )


@dataclass(frozen=True, slots=True)
class Alias:
    """The same stored objects under another group-version and shape, e.g. Event in events.k8s.io/v1."""

    group: str
    version: str
    definition: str
    to: Callable[[Json], Json]  # stored -> alias shape
    back: Callable[[Json], Json]  # alias -> stored shape
