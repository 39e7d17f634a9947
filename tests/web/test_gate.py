"""What may pass to the API, as a table; and that values of Secrets do not."""

from __future__ import annotations

from typing import Any

import pytest

from minik8s.api.errors import Forbidden, NotFound
from minik8s.web import gate

PODS = "/api/v1/namespaces/a/pods"


@pytest.mark.parametrize(
    ("path", "resource", "subresource"),
    [
        ("/version", "", ""), ("/apis", "", ""), ("/api/v1", "", ""), ("/apis/apps/v1", "", ""),
        ("/api/v1/pods", "pods", ""), (PODS, "pods", ""), (f"{PODS}/b", "pods", ""), (f"{PODS}/b/log", "pods", "log"),
        ("/api/v1/namespaces", "namespaces", ""), ("/api/v1/namespaces/a", "namespaces", ""),
        ("/api/v1/nodes/n/proxy/metrics", "nodes", "proxy/metrics"),
        ("/apis/apps/v1/namespaces/a/deployments/d/scale", "deployments", "scale"),
    ],
)  # fmt: skip
def test_a_path_is_read(path: str, resource: str, subresource: str) -> None:
    assert gate.target(path) == (path, resource, subresource)


@pytest.mark.parametrize("path", ["/", "/metrics", "/api/../metrics", "/api//v1", "/static/x", "/api/v1/pods/"])
def test_what_is_no_way_into_the_api_is_not_found(path: str) -> None:
    if path.endswith("pods/"):
        assert gate.target(path).path == "/api/v1/pods"
        return
    with pytest.raises(NotFound):
        gate.target(path)


def test_a_path_goes_on_encoded() -> None:
    assert gate.target("/api/v1/nodes/a b?c#d/e").path == "/api/v1/nodes/a%20b%3Fc%23d/e"


READ = {"GET": True, "HEAD": True, "POST": False, "PUT": False, "PATCH": False, "DELETE": False}


@pytest.mark.parametrize(("method", "passes"), READ.items())
def test_read_only_means_so(method: str, passes: bool) -> None:
    def check(write: bool) -> None:
        gate.check(method, gate.target(f"{PODS}/b"), write=write)

    check(True)
    if passes:
        check(False)
    else:
        with pytest.raises(Forbidden, match="--dashboard-write"):
            check(False)


def test_questions_about_oneself_are_reading() -> None:
    path = gate.target("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
    gate.check("POST", path, write=False)


@pytest.mark.parametrize(
    "path",
    [
        f"{PODS}/b/proxy", f"{PODS}/b/proxy/x", f"{PODS}/b/exec", f"{PODS}/b/portforward", "/api/v1/nodes/n/proxy/logs",
        "/api/v1/namespaces/a/services/s/proxy/x", "/api/v1/proxy/namespaces/a/pods/b", "/api/v1/watch/pods",
        "/api/v1/namespaces/a/serviceaccounts/s/token", "/api/v1/nodes/n/proxy/enginex", "/api/v1/nodes/n/proxy",
        f"{PODS}/b/proxy/engine", "/api/v1/namespaces/a/services/s/proxy/engine",
    ],
)  # fmt: skip
def test_ways_to_foreign_content_and_fresh_credentials_are_closed(path: str) -> None:
    for method in READ:
        with pytest.raises(Forbidden, match="kubectl"):
            gate.check(method, gate.target(path), write=True)


@pytest.mark.parametrize("path", ["", "/containers/c", "/containers/c/log", "/images/sha256:1"])
def test_a_nodes_engine_is_reached_and_changed_by_writers_alone(path: str) -> None:
    target = gate.target(f"/api/v1/nodes/n/proxy/engine{path}")
    gate.check("GET", target, write=False)
    gate.check("DELETE", target, write=True)
    with pytest.raises(Forbidden, match="--dashboard-write"):
        gate.check("DELETE", target, write=False)
    assert target.is_log == path.endswith("/log")


def test_secrets_keep_their_values() -> None:
    annotations = {gate.APPLIED: '{"data":{"a":"x"}}', "kept": "1"}
    secret: dict[str, Any] = {"metadata": {"name": "s", "annotations": annotations}, "data": {"a": "eA=="}, "type": "t"}
    bare = {"metadata": {"name": "s", "annotations": {"kept": "1"}}, "data": {"a": ""}, "type": "t"}
    assert gate.hidden(secret) == bare
    assert gate.hidden({"kind": "SecretList", "items": [secret]}) == {"kind": "SecretList", "items": [bare]}
    assert secret["data"] == {"a": "eA=="}
    for method in ("POST", "PUT", "PATCH"):
        with pytest.raises(Forbidden, match="Secrets"):
            gate.check(method, gate.target("/api/v1/namespaces/a/secrets/s"), write=True)
    gate.check("DELETE", gate.target("/api/v1/namespaces/a/secrets/s"), write=True)
