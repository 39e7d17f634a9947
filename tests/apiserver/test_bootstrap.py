"""What every cluster begins with, however often and by how many masters it is begun."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from api_harness import ADMIN

from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.endpointslice import EndpointSlice
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.rbac import ClusterRole, ClusterRoleBinding, RoleBinding
from minik8s.api.kinds.service import Service
from minik8s.api.scheme import SCHEME
from minik8s.apiserver.assembly import build_handler
from minik8s.apiserver.bootstrap import AUTOUPDATE, CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, NAMESPACES, bootstrap
from minik8s.apiserver.handler import AllowAll
from minik8s.apiserver.loopback import LoopbackTransport
from minik8s.client.base import Client
from minik8s.store.watch_cache import WatchCache

PLACE: dict[str, Any] = {"ca": "PEM", "service_ip": "10.96.0.1", "address": "192.0.2.1", "port": 6443}


@pytest.fixture
def client(cache: WatchCache) -> Client:
    return Client(LoopbackTransport(build_handler(cache, authenticator=None, authorizer=AllowAll()), ADMIN))


async def everything(client: Client) -> dict[str, str]:
    """key -> resourceVersion of all objects of all kinds."""
    return {
        f"{resource.name}/{obj.key}": obj.metadata.resourceVersion
        for resource in SCHEME.resources
        for obj in (await client.list_as(resource, resource.type)).items
    }


async def test_a_second_time_nothing_changes(client: Client) -> None:
    await bootstrap(client, **PLACE)
    first = await everything(client)
    assert len(first) > 20
    await bootstrap(client, **PLACE)
    assert await everything(client) == first


async def test_two_masters_may_begin_at_once(client: Client) -> None:
    await asyncio.gather(bootstrap(client, **PLACE), bootstrap(client, **PLACE))
    assert {namespace.metadata.name for namespace in (await client.list(Namespace)).items} == set(NAMESPACES)


async def test_a_moved_master_is_found_where_it_is_now(client: Client) -> None:
    await bootstrap(client, **PLACE)
    await bootstrap(client, **{**PLACE, "address": "192.0.2.2", "port": 7443})
    service = await client.get(Service, "kubernetes", "default")
    assert (service.spec.clusterIP, service.spec.ports[0].port, service.spec.ports[0].targetPort) == (
        "10.96.0.1", 443, 7443,
    )  # fmt: skip
    slice = await client.get(EndpointSlice, "kubernetes", "default")
    assert slice.endpoints[0].addresses == ("192.0.2.2",)
    assert slice.ports[0].port == 7443


async def test_default_roles_regain_what_they_lack_and_keep_what_was_added(client: Client) -> None:
    await bootstrap(client, **PLACE)
    whole = (await client.get(ClusterRole, "view")).rules
    added = {"verbs": ["get"], "apiGroups": ["example.com"], "resources": ["things"]}
    await client.patch(ClusterRole, "view", None, {"rules": [added]})
    await bootstrap(client, **PLACE)
    rules = (await client.get(ClusterRole, "view")).rules
    assert {rule.resources for rule in rules} == {*(rule.resources for rule in whole), ("things",)}


async def test_who_has_opted_out_is_left_alone(client: Client) -> None:
    await bootstrap(client, **PLACE)
    patch = {"metadata": {"annotations": {AUTOUPDATE: "false"}}, "rules": []}
    await client.patch(ClusterRole, "view", None, patch)
    await bootstrap(client, **PLACE)
    assert (await client.get(ClusterRole, "view")).rules == ()


async def test_a_stranger_may_read_the_ca_and_nothing_else(client: Client) -> None:
    await bootstrap(client, **PLACE)
    assert (await client.get(ConfigMap, "cluster-info", "kube-public")).data == {"ca.crt": "PEM"}
    bindings = (await client.list(RoleBinding)).items
    assert [(b.metadata.namespace, s.name) for b in bindings for s in b.subjects] == [
        ("kube-public", "system:anonymous")
    ]
    everybody = [
        binding.roleRef.name
        for binding in (await client.list(ClusterRoleBinding)).items
        for subject in binding.subjects
        if subject.name == "system:unauthenticated"
    ]
    assert everybody == ["system:public-info-viewer"]


def test_bindings_refer_to_roles_that_are_there() -> None:
    assert {role for role, _ in CLUSTER_ROLE_BINDINGS.values()} <= set(CLUSTER_ROLES)


def test_reading_is_part_of_writing_and_that_of_administering() -> None:
    for less, more in (("view", "edit"), ("edit", "admin")):
        assert all(rule in CLUSTER_ROLES[more] for rule in CLUSTER_ROLES[less])


def test_viewers_see_no_secrets_and_run_nothing() -> None:
    for rule in CLUSTER_ROLES["view"]:
        assert set(rule["verbs"]) == {"get", "list", "watch"}
        assert not {"secrets", "pods/exec", "pods/attach", "roles"} & set(rule["resources"])
