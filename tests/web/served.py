"""A dashboard to test: a master with simulated nodes in a process of its own, and what tests say to its API."""

from __future__ import annotations

import json
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, Request, build_opener

from tests.agent import Agent, answers, free_port, until

NODES = 3


class Served:
    def __init__(self, agent: Agent, port: int) -> None:
        self.agent = agent
        self.url = f"http://127.0.0.1:{port}/"
        pki = agent.data / "pki"
        context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        self._opener = build_opener(HTTPSHandler(context=context))

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One request as the administrator. Raises HTTPError."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        data = None if body is None else json.dumps(body).encode()
        asked = Request(f"https://127.0.0.1:{self.agent.port}{path}", data, {"content-type": kind}, method=method)
        with self._opener.open(asked, timeout=20) as answer:
            return json.load(answer)

    def pod(self, name: str, **metadata: Any) -> Any:
        pod = {"metadata": {"name": name, **metadata}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
        return self.api("POST", "/api/v1/namespaces/default/pods", pod)

    def deployment(self, name: str, replicas: int) -> Any:
        template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
        spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
        path = "/apis/apps/v1/namespaces/default/deployments"
        return self.api("POST", path, {"metadata": {"name": name}, "spec": spec})

    def token(self, name: str, *, role: str = "", namespace: str = "default") -> str:
        """Of a ServiceAccount, made with a ClusterRole in the namespace if one is given."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        try:
            self.api("POST", accounts, {"metadata": {"name": name}})
        except HTTPError as error:
            if error.code != 409:  # it is there already
                raise
        if role:
            subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
            to = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
            binding = {"metadata": {"name": name}, "roleRef": to, "subjects": [subject]}
            self.api("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings", binding)
        return str(
            self.api("POST", f"{accounts}/{name}/token", {"spec": {"expirationSeconds": 3600}})["status"]["token"]
        )

    def admin(self) -> str:
        """What `minik8s dashboard` prints."""
        url, token = self.agent.minik8s("dashboard", "--data-dir", str(self.agent.data)).out.split()
        assert url == self.url
        return token


@contextmanager
def served(*options: str) -> Iterator[Served]:
    with tempfile.TemporaryDirectory(prefix="minik8s-web-") as folder:
        port = free_port()
        agent = Agent(Path(folder) / "data", options=(
            "--runtime", "fake", "--replicas", str(NODES), "--node-ip", "127.0.0.1", "--store", "memory",
            "--dashboard-listen", f"127.0.0.1:{port}", *options,
        ))  # fmt: skip
        agent.start(ready=False)
        try:
            until(lambda: agent.pid is None or answers(agent.port, "/readyz"), what=lambda: agent.log)
            yield Served(agent, port)
        finally:
            agent.stop()
