"""Debian's Prometheus scrapes a cluster by configs/prometheus.yaml, and every query of the dashboards finds data.

Debian builds Prometheus without Kubernetes' service discovery. So the test says in files what that would find, with the
labels that it would give; what the configuration makes of them is Prometheus' own doing.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
from ruamel.yaml import YAML

from tests.agent import Agent, free_port, until
from tests.e2e.space import Space
from tests.images import BUSYBOX
from tests.patience import patience

CONFIGS = Path(__file__).parents[2] / "configs"
INSIDE = "/var/run/secrets/kubernetes.io/serviceaccount"
PATIENCE = 40.0  # seconds until every query must have found something
# What happens only where something is wrong is no less of a query: it has to be readable, and may be empty.
MAY_BE_EMPTY = ("Keys tried again",)

pytestmark = pytest.mark.skipif(not shutil.which("prometheus"), reason="needs the package prometheus")

# Asks for names, writes to the disk, and hits its CPU limit.
WORK = """
while true; do
  nslookup kubernetes.default >/dev/null; echo x >/tmp/x; sync
  i=0; while [ $i -lt 9999 ]; do i=$((i+1)); done
done
"""


def discovered(agent: Agent, role: str) -> list[dict[str, Any]]:
    """What `kubernetes_sd_configs` of a role would give: targets, and labels that begin with `__meta_kubernetes_`."""
    if role == "node":
        nodes = agent.kubectl("get", "nodes", "-o", "json").json["items"]
        return [_group("node:10250", node_name=node["metadata"]["name"]) for node in nodes]
    if role == "endpoints":
        found = agent.kubectl("get", "endpoints", "kubernetes", "-o", "json").json["subsets"]
        return [
            _group(f"{address['ip']}:{port['port']}", service_name="kubernetes", endpoint_port_name=port["name"])
            for subset in found
            for address in subset["addresses"]
            for port in subset["ports"]
        ]
    return []  # no pod here asks to be scraped


def _group(target: str, **labels: str) -> dict[str, Any]:
    return {"targets": [target], "labels": {f"__meta_kubernetes_{name}": value for name, value in labels.items()}}


def configured(agent: Agent, folder: Path) -> Path:
    """configs/prometheus.yaml, as its first comment says to use it on a host, and with what is discovered in files."""
    agent.kubectl("apply", "-f", str(CONFIGS / "prometheus-rbac.yaml"))
    (folder / "token").write_text(agent.kubectl("create", "token", "prometheus", "-n", "monitoring").out.strip())
    place = "jsonpath={.clusters[0].cluster.certificate-authority-data}"
    encoded = agent.kubectl("config", "view", "--raw", "-o", place).out
    subprocess.run(["base64", "-d"], input=encoded.encode(), stdout=(folder / "ca.crt").open("wb"), check=True)
    text = (CONFIGS / "prometheus.yaml").read_text().replace("scrape_interval: 15s", "scrape_interval: 1s")
    text = text.replace(INSIDE, str(folder)).replace("kubernetes.default.svc:443", f"127.0.0.1:{agent.port}")
    document = YAML(typ="safe", pure=True).load(text)
    for job in document["scrape_configs"]:
        (asked,) = job.pop("kubernetes_sd_configs")
        file = folder / f"{job['job_name']}.json"
        file.write_text(json.dumps(discovered(agent, asked["role"])))
        job["file_sd_configs"] = [{"files": [str(file)]}]
    made = folder / "prometheus.yml"
    made.write_text(json.dumps(document))  # JSON is YAML
    return made


class Prometheus:
    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str, **query: str) -> Any:
        with urlopen(f"http://127.0.0.1:{self._port}/api/v1/{path}?{urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]

    def finds(self, query: str) -> bool:
        """Whether a query gives a number; NaN, a quantile of nothing, is none."""
        found = self.ask("query", query=query)["result"]
        return any(not math.isnan(float(each["value"][1])) for each in found)

    @property
    def is_ready(self) -> bool:
        try:
            return bool(urlopen(f"http://127.0.0.1:{self._port}/-/ready", timeout=5).status == 200)
        except (URLError, ConnectionError):
            return False


@contextmanager
def running(config: Path) -> Iterator[Prometheus]:
    port = free_port()
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={config.parent}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with (config.parent / "log").open("wb") as log:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command], stdout=log, stderr=log)
    try:
        it = Prometheus(port)
        until(lambda: it.is_ready, what=lambda: (config.parent / "log").read_text())
        yield it
    finally:
        process.terminate()
        process.wait(10)


def queries() -> dict[tuple[str, str], str]:
    """Every query of the dashboards by dashboard and expression, as Grafana sends it when all is chosen."""
    found = {}
    for file in sorted((CONFIGS / "grafana").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                if panel["title"] not in MAY_BE_EMPTY:
                    sent = target["expr"].replace("$__rate_interval", "30s")
                    found[file.stem, panel["title"] + " " + target["refId"]] = sent.replace("$namespace", ".*").replace(
                        "$pod", ".*"
                    )
    return found


def test_every_query_of_the_dashboards_finds_data(agent: Agent, space: Space, tmp_path: Path) -> None:
    limits = {"resources": {"limits": {"cpu": "50m", "memory": "64Mi"}}}
    space.pod("busy", "sh", "-c", WORK, more=limits, wait="")
    with running(configured(agent, tmp_path)) as prometheus:
        missing, deadline, turn = queries(), time.monotonic() + patience(PATIENCE), 0
        assert len(missing) > 40
        while missing and time.monotonic() < deadline:
            _stir(space, turn)
            turn += 1
            missing = {place: query for place, query in missing.items() if not prometheus.finds(query)}
        assert not missing
        targets = prometheus.ask("targets", state="active")["activeTargets"]
        assert {(each["labels"]["job"], each["health"]) for each in targets} == {("apiserver", "up"), ("kubelet", "up")}
        assert len(targets) == 3


def _stir(space: Space, turn: int) -> None:
    """Something of everything that is counted."""
    space.k("get", "configmap", "nowhere", check=False)
    space.k("create", "service", "clusterip", f"s{turn}", "--tcp=80")
    space.k("run", f"p{turn}", f"--image={BUSYBOX}", "--restart=Never", "--", "true")
    space.k("delete", "service", f"s{turn}")
