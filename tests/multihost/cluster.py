"""Three hosts, one cluster: what tests of several hosts share, and how it becomes whole again between them."""

from __future__ import annotations

from typing import Any

from tests.agent import Agent, Ended, Failed, until
from tests.e2e.space import Space, pod
from tests.lab.host import LabHost
from tests.lab.lab import Lab

LOST_AFTER = 7  # seconds: the fast profile
FAST = ("--node-lost-after", f"{LOST_AFTER}s")
Json = dict[str, Any]


class Cluster:
    """h1: master and node; h2: worker in another subnet; h3: worker beside h1. Hosts and agents go by these names.

    cluster.kubectl("get", "nodes")
    cluster.lab.cut(cluster.hosts["h2"])     # faults: see tests/lab/lab.py
    cluster.agents["h3"].kill9()             # agents: see tests/agent.py
    cluster.power_cut("h2"); cluster.power_on("h2")
    cluster.heal()                           # all on, all started, no faults, all nodes Ready; before each test anyway
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts: dict[str, LabHost] = {host.name: host for host in lab.hosts}
        self.agents: dict[str, Agent] = {name: host.agent(*FAST) for name, host in self.hosts.items()}

    def start(self) -> None:
        """The master, then those who join it."""
        self.lab.start_engines()
        self.lab.make_images("busybox", "nginx")
        first, *others = self.agents.values()
        first.start()
        for agent in others:
            agent.options += self.join_options()
            agent.start(ready=False)  # from this thread: an agent ends with the thread that started it
        for agent in others:
            agent.wait_ready()
        self.wait_ready()

    def join_options(self) -> tuple[str, ...]:
        """Options with which a host becomes a worker; with a token of its own."""
        first = self.master
        token = self.lab.hosts[0].minik8s("token", "create", "--data-dir", str(first.data)).out.strip()
        return ("--role", "worker", "--join", f"{first.address}:{first.port}", "--token", token)

    def wait_ready(self, *names: str, seconds: int = 30) -> None:
        """Until nodes (all, unless named) are there and Ready."""
        nodes = [f"node/{name}" for name in names or self.hosts]
        until(lambda: self._are_ready(nodes), seconds=seconds, what=self._trouble)

    def _are_ready(self, nodes: list[str]) -> bool:
        ended = [name for name, agent in self.agents.items() if agent.process is not None and agent.pid is None]
        if ended:
            raise Failed(f"agents have ended:\n{self._trouble()}")
        condition = "jsonpath={range .items[*]}{.status.conditions[?(@.type=='Ready')].status} {end}"
        return self.kubectl("get", *nodes, "-o", condition, check=False).out.split() == ["True"] * len(nodes)

    def _trouble(self) -> str:
        """What everybody said last."""
        logs = [f"--- {name}\n{agent.log[-2000:]}" for name, agent in self.agents.items() if agent.process is not None]
        return "\n".join([self.kubectl("get", "nodes", check=False).both, *logs])

    def stop(self) -> None:
        """Told to stop, so that each agent has the chance to fail at it."""
        running = [agent for agent in self.agents.values() if agent.pid is not None]
        for agent in reversed(running):
            agent.stop()

    # -- power

    def power_cut(self, name: str) -> None:
        """The host dies with its engine and agent."""
        self.lab.power_cut(self.hosts[name])
        process = self.agents[name].process
        if process is not None:
            process.wait(20)

    def power_on(self, name: str, *, start: bool = True) -> None:
        """Boot it, and start what it runs unless told otherwise."""
        host, agent = self.hosts[name], self.agents[name]
        self.lab.power_on(host)
        agent.prefix = host.prefix
        if start:
            host.start_engine()
            agent.start()

    def heal(self) -> None:
        """As after `start`: what a test has cut, stopped or killed does not concern the next one."""
        self.lab.heal()
        for name, host in self.hosts.items():
            if not host.is_on:
                self.power_on(name, start=False)
            if not host.engine_answers():
                host.start_engine()
        for agent in self.agents.values():
            if agent.pid is None:
                agent.start(ready=False)
        for agent in self.agents.values():
            agent.wait_ready()
        for name in self.hosts:
            self.kubectl("uncordon", name, check=False)
        self.wait_ready()

    # -- speaking with it

    @property
    def master(self) -> Agent:
        return next(iter(self.agents.values()))

    def kubectl(self, *args: str, **more: Any) -> Ended:
        return self.master.kubectl(*args, **more)

    def node(self, name: str) -> Json:
        found: Json = self.kubectl("get", "node", name, "-o", "json").json
        return found

    def run(self, name: str, *command: str, **more: Any) -> Ended:
        """A command on a host, in all its namespaces."""
        return self.hosts[name].run(*command, **more)

    def sh(self, name: str, script: str, **more: Any) -> str:
        return self.run(name, "sh", "-c", script, **more).out.strip()


def on(node: str, name: str, *command: str, **spec: Any) -> Json:
    """A pod for a certain host; as `tests.e2e.space.pod` otherwise."""
    return pod(name, *command, **{"nodeSelector": {"kubernetes.io/hostname": node}, **spec})


def one_on_each(space: Space, cluster: Cluster, *command: str, stem: str = "p", **spec: Any) -> dict[str, str]:
    """A ready pod `STEM-HOST` on each host; their addresses by host."""
    names = {host: f"{stem}-{host}" for host in cluster.hosts}
    space.apply(*(on(host, name, *command, **spec) for host, name in names.items()))
    space.wait("condition=Ready", *(f"pod/{name}" for name in names.values()), seconds=40)
    ips = {p["metadata"]["name"]: p["status"].get("podIP", "") for p in space.get("pods")}
    return {host: ips[name] for host, name in names.items()}
