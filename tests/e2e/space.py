"""A namespace for one test, and short words for what tests do in it."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.agent import Agent, Ended, until
from tests.images import BUSYBOX, NGINX
from tests.patience import patience

FOREVER = ("sleep", "1000000")
HTTP, HTTPS = 18080, 18443  # of Ingresses: this machine may have a web server of its own
DASHBOARD = "127.0.0.1:18088"


@dataclass
class Space:
    agent: Agent
    name: str
    binary: Path | None = None

    @classmethod
    def make(cls, agent: Agent, test: str) -> Space:
        stem = re.sub("[^a-z0-9]+", "-", test.lower().removeprefix("test_"))[:40].strip("-")
        space = cls(agent, f"{stem}-{secrets.token_hex(2)}")
        agent.kubectl("create", "namespace", space.name)
        # Pods get tokens of the namespace's account: it comes a moment after the namespace.
        until(lambda: space.k("get", "serviceaccount", "default", check=False).code == 0)
        return space

    def remove(self) -> None:
        self.k("delete", "pods", "--all", "--grace-period=0", "--force", "--wait=false", check=False)
        self.k("delete", "namespace", self.name, "--wait=false", check=False)

    # -- kubectl

    def k(self, *args: str, **more: Any) -> Ended:
        """kubectl in this namespace."""
        return self.agent.kubectl("-n", self.name, *args, binary=self.binary, **more)

    def out(self, *args: str, **more: Any) -> str:
        """What kubectl prints, without the last newline."""
        return self.k(*args, **more).out.rstrip("\n")

    def popen(self, *args: str, **more: Any) -> subprocess.Popen[Any]:
        return self.agent.popen("-n", self.name, *args, binary=self.binary, **more)

    def get(self, *args: str) -> Any:
        """The object, or the items of a list, as dicts."""
        got = self.k("get", *args, "-o", "json").json
        return got["items"] if got["kind"] == "List" else got

    def path(self, what: str, expression: str) -> str:
        """A JSONPath of one object: `path("pod/web", ".status.podIP")`."""
        return self.out("get", what, "-o", f"jsonpath={{{expression}}}")

    def apply(self, *objects: dict[str, Any]) -> Ended:
        return self.k(
            "apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        )

    def wait(self, condition: str, *what: str, seconds: int = 20) -> Ended:
        seconds = int(patience(seconds))
        return self.k("wait", f"--for={condition}", *what, f"--timeout={seconds}s", seconds=seconds + 10)

    def until(self, what: str, test: Callable[[Any], Any], *, seconds: float = 20) -> Any:
        """The object as soon as `test` holds for it."""
        seen: list[Any] = []

        def look() -> bool:
            ended = self.k("get", *what.split(), "-o", "json", check=False)
            seen[:] = [ended.json if ended.code == 0 else ended.err]
            return ended.code == 0 and bool(test(seen[0]))

        until(
            look, seconds=seconds, what=lambda: f"{what} did not become so in {seconds} s: {json.dumps(seen, indent=1)}"
        )
        return seen[0]

    # -- pods

    def pod(self, name: str = "p", *command: str, wait: str = "condition=Ready", **spec: Any) -> None:
        """Apply a pod of one container (or `containers=`) and wait for it (`wait=""`: do not)."""
        self.apply(pod(name, *command, **spec))
        if wait:
            self.wait(wait, f"pod/{name}")

    def exec(self, pod: str, *command: str, container: str = "", check: bool = True, seconds: float = 30) -> str:
        """What a command in a pod prints, stripped; with stderr if it may fail."""
        chosen = ("-c", container) if container else ()
        ended = self.k("exec", pod, *chosen, "--", *command, check=check, seconds=seconds)
        return (ended.out if check else ended.both).strip()

    def sh(self, pod: str, script: str, **more: Any) -> str:
        return self.exec(pod, "sh", "-c", script, **more)

    def events(self, reason: str, **fields: str) -> list[dict[str, Any]]:
        items = self.get("events")
        return [
            e
            for e in items
            if e["reason"] == reason and all(e["involvedObject"].get(k) == v for k, v in fields.items())
        ]


def container(name: str = "c", *command: str, image: str = BUSYBOX, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": image, **({"command": list(command)} if command else {}), **more}


def pod(
    name: str, *command: str, labels: dict[str, str] | None = None, annotations: dict[str, str] | None = None,
    containers: Sequence[dict[str, Any]] = (), image: str = BUSYBOX, more: dict[str, Any] | None = None, **spec: Any,
) -> dict[str, Any]:  # fmt: skip
    """A Pod that runs `command` (default: sleeps) and dies at once when told to; `more` goes into its container."""
    only = [container("c", *(command or FOREVER if image == BUSYBOX else command), image=image, **(more or {}))]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {"app": name}, "annotations": annotations or {}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": list(containers) or only, **spec},
    }


def web(name: str, replicas: int = 2, *, image: str = NGINX, probe: bool = True, **spec: Any) -> dict[str, Any]:
    """A Deployment of nginx, ready when it answers."""
    c = container("web", image=image, ports=[{"name": "http", "containerPort": 80}])
    if probe:
        c["readinessProbe"] = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}
    return deployment(name, replicas, c, **spec)


def deployment(name: str, replicas: int, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "containers": list(containers or [container("c", *FOREVER)]),
                },
            },
            **spec,
        },
    }


def service(name: str, *ports: dict[str, Any], selector: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    wanted = {"selector": selector or {"app": name}, "ports": list(ports) or [{"port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": wanted}


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
