"""helm installs, upgrades, rolls back and uninstalls a chart."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from cluster_harness import ROOT, Cli

HELMS = ROOT / ".venv" / "kubectl"
CHART = "apiVersion: v2\nname: web\nversion: 0.1.0\n"
TEMPLATE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata: {labels: {app: {{ .Release.Name }}}}
    spec:
      containers: [{name: web, image: "web:1"}]
---
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec:
  selector: {app: {{ .Release.Name }}}
  ports: [{port: 80}]
"""


@pytest.mark.kubectl
@pytest.mark.parametrize("kubectl", ["1.37"], indirect=True)  # who fetches one, fetches helm as well
@pytest.mark.parametrize(("name", "options"), [("helm.1.28", ()), ("helm.1.37", ("--server-side=false",))])
def test_a_release(cli: Cli, kubectl: Path, name: str, options: tuple[str, ...]) -> None:
    if not (HELMS / name).exists():
        pytest.skip(f"no {name} beside kubectl")
    cli.file("web/Chart.yaml", CHART)
    cli.file("web/values.yaml", "replicas: 1\n")
    cli.file("web/templates/all.yaml", TEMPLATE)

    def helm(*args: str) -> str:
        command = [str(HELMS / name), *args, "-n", cli.namespace]
        env = {"PATH": os.environ["PATH"], **cli.environment()}
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cli.home, timeout=60)
        assert done.returncode == 0, done
        return done.stdout

    def replicas() -> int:
        count: int = json.loads(cli.ok("get", "deploy", "r", "-o", "json"))["spec"]["replicas"]
        return count

    helm("install", "r", "web", *options)
    assert replicas() == 1
    helm("upgrade", "r", "web", "--set", "replicas=3", *options)
    assert replicas() == 3
    helm("rollback", "r", "1", *options)
    assert replicas() == 1
    assert [each["status"] for each in json.loads(helm("history", "r", "-o", "json"))] == [
        "superseded", "superseded", "deployed",
    ]  # fmt: skip
    helm("uninstall", "r")
    assert cli.ok("get", "deploy,svc,secret", "-o", "name") == ""
