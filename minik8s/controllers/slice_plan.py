"""The fewest writes that make a Service's EndpointSlices say what `endpoint_render` says. Pure.

An endpoint stays in the slice where it is; new ones fill slices that are written anyhow, then those with room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from minik8s.api.kinds.endpointslice import Endpoint, EndpointSlice
from minik8s.controllers.endpoint_render import Ports

MAX_ENDPOINTS = 100  # per slice; --max-endpoints-per-slice


class Plan(NamedTuple):
    create: list[tuple[Ports, tuple[Endpoint, ...]]]
    update: list[EndpointSlice]  # with the endpoints and labels that it should have
    delete: list[EndpointSlice]


def plan(
    groups: Mapping[Ports, Sequence[Endpoint]],
    existing: Sequence[EndpointSlice],
    labels: Mapping[str, str],
    limit: int = MAX_ENDPOINTS,
) -> Plan:
    """`existing` are the slices of one Service and address type. Without any endpoint one empty slice remains, which
    says that the Service is known and has none."""
    result = Plan([], [], [])
    wanted = groups or {(): ()}
    by_ports: dict[Ports, list[EndpointSlice]] = {}
    for each in sorted(existing, key=lambda each: each.metadata.name):
        by_ports.setdefault(each.ports, []).append(each)
    for ports, slices in by_ports.items():
        if ports not in wanted:
            result.delete.extend(slices)
    for ports, endpoints in wanted.items():
        _fill(ports, endpoints, by_ports.get(ports, []), dict(labels), limit, result)
    return result


def _fill(
    ports: Ports,
    endpoints: Sequence[Endpoint],
    slices: Sequence[EndpointSlice],
    labels: dict[str, str],
    limit: int,
    result: Plan,
) -> None:
    left = {_identity(endpoint): endpoint for endpoint in endpoints}
    contents: list[list[Endpoint]] = []
    for each in slices:
        # A known endpoint keeps its place; `pop` drops one that stands in two slices from the second.
        contents.append([now for known in each.endpoints if (now := left.pop(_identity(known), None)) is not None])
    fresh = list(left.values())
    changed = [tuple(content) != each.endpoints for content, each in zip(contents, slices, strict=True)]
    for index in sorted(range(len(slices)), key=lambda index: (not changed[index], -len(contents[index]))):
        room = max(0, limit - len(contents[index]))
        contents[index] += fresh[:room]
        fresh = fresh[room:]
    has_some = bool(fresh)
    result.create.extend((ports, tuple(fresh[at : at + limit])) for at in range(0, len(fresh), limit))
    for each, content in zip(slices, contents, strict=True):
        if (not content and (has_some or endpoints)) or (not content and each is not slices[0]):
            result.delete.append(each)
        elif tuple(content) != each.endpoints or each.metadata.labels != labels:
            meta = msgspec.structs.replace(each.metadata, labels=labels)
            result.update.append(msgspec.structs.replace(each, metadata=meta, endpoints=tuple(content)))
    if not endpoints and not slices:
        result.create.append((ports, ()))


def _identity(endpoint: Endpoint) -> object:
    reference = endpoint.targetRef
    return (reference.uid or reference.name, endpoint.addresses) if reference is not None else endpoint.addresses
