"""What is on this host on behalf of an agent, as other programs see it: containers, links, leases, folders.

Read with `docker` and the kernel's own files, not with the code under test.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple

from tests.agent import Agent, run


class Container(NamedTuple):
    id: str
    name: str  # k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT, or k8s_WARM_…
    pid: int  # 0 if it does not run
    state: str
    container: str
    pod: str
    uid: str
    attempt: int


@dataclass
class Host:
    agent: Agent

    def docker(self, *arguments: str) -> str:
        return run([*self.agent.prefix, "docker", *arguments]).out

    @property
    def node_uid(self) -> str:
        return (self.agent.data / "node" / "uid").read_text().strip()

    def containers(self, pod: str = "") -> list[Container]:
        """Of this agent (or of one of its pods), sandboxes included, those in the pool not."""
        ids = self.docker("ps", "-aq", "--no-trunc", "--filter", f"label=io.minik8s.managed={self.node_uid}").split()
        if not ids:
            return []
        # One may go between the two commands: docker then tells of the others and ends with an error.
        answer = run([*self.agent.prefix, "docker", "inspect", *ids], check=False)
        found = [_container(one) for one in json.loads(answer.out)]
        return [one for one in found if one.uid and pod in ("", one.pod)]

    def container(self, pod: str, container: str = "app") -> Container:
        """The only one that runs."""
        (one,) = [c for c in self.containers(pod) if c.container == container and c.state == "running"]
        return one

    def pids(self) -> dict[str, int]:
        return {one.name: one.pid for one in self.containers() if one.pid}

    def doubles(self) -> list[str]:
        """What runs more than once: a container of one pod."""
        running = Counter((one.uid, one.container) for one in self.containers() if one.state == "running")
        return [f"{container} of {uid}: {count}" for (uid, container), count in running.items() if count > 1]

    def links(self) -> set[str]:
        """Names of the host's ends of pods' links; `mk8s-…` are the node's own."""
        every = run([*self.agent.prefix, "ls", "/sys/class/net"]).out.split()
        return {name for name in every if name.startswith("mk8s") and not name.startswith("mk8s-")}

    def leases(self) -> dict[str, str]:
        """Pod uid -> address."""
        file = self.agent.data / "net" / "leases.json"
        held: dict[str, str] = json.loads(file.read_text())["leases"]["held"] if file.exists() else {}
        return held

    def pod_folders(self) -> set[str]:
        folder = self.agent.data / "pods"
        return set(os.listdir(folder)) if folder.exists() else set()

    def leftovers(self, uids: set[str]) -> dict[str, Any]:
        """What belongs to no pod of `uids`, which are all on the pod network; empty if all is as it should be."""
        found = {
            "containers": sorted(one.name for one in self.containers() if one.uid not in uids),
            "leases": sorted(self.leases().keys() - uids),
            "folders": sorted(self.pod_folders() - uids),
            "links": len(self.links()) - len(uids),
            "doubles": self.doubles(),
        }
        return {what: value for what, value in found.items() if value}


def _container(answer: dict[str, Any]) -> Container:
    state, name = answer["State"], answer["Name"].removeprefix("/")
    parts = name.split("_")  # names tell all: a sandbox from the pool bears the labels that it was made with
    _, container, pod, _, uid, attempt = parts if len(parts) == 6 else ("", "", "", "", "", "0")
    return Container(answer["Id"], name, state["Pid"], state["Status"], container, pod, uid, int(attempt))
