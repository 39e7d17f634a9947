"""Looking: tables as kubectl prints them, other forms, watching, and how quick `get` is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_harness import Cli
from manifests_text import CONFIG, POD, WEB

from minik8s.api.kinds.event import Event

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.mark.kubectl
@pytest.mark.parametrize(
    "args",
    [
        ("get", "deploy,svc,cm"), ("get", "pods", "-o", "wide"), ("get", "pods", "--show-labels"),
        ("get", "pod/p1", "svc/web"), ("get", "pods", "-L", "app,nope"), ("get", "pods", "--no-headers"),
        ("get", "deploy", "web", "-o", "wide"), ("get", "all"), ("get", "pods", "-l", "app=p"),
        ("get", "deploy", "-o", "name"), ("get", "svc", "web", "-o", "jsonpath={.spec.ports[0].targetPort}"),
        ("get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name}{\"\\t\"}{.spec.containers[*].name}{\"\\n\"}{end}"),  # noqa: E501
        ("get", "deploy", "-o", "custom-columns=NAME:.metadata.name,IMAGES:.spec.template.spec.containers[*].image,X:.x"),  # noqa: E501
        ("get", "pods", "--sort-by=.metadata.name"), ("get", "deploy", "web", "-o", "json"), ("get", "cm", "c1", "-o", "yaml"),  # noqa: E501
        ("get", "deploy", "web", "-o", "yaml"), ("get", "pod", "p1", "-o", "yaml"), ("get", "pods", "-o", "yaml"),
        ("get", "pods", "-o", "jsonpath={.items[?(@.metadata.name==\"p1\")].spec.containers[0].image}"),
    ],
)  # fmt: skip
def test_the_same_text_as_kubectl(cli: Cli, kubectl: Path, args: tuple[str, ...]) -> None:
    cli.ok("apply", "-f", "-", stdin=f"{WEB}---\n{POD}---\n{CONFIG}")
    assert without_ages(cli.ok(*args)) == without_ages(cli.kubectl(kubectl, *args))


def without_ages(text: str) -> str:
    """The clock may tick between two commands."""
    return re.sub(r"\b\d+s\b +|\b\d+s$", "AGE ", text, flags=re.MULTILINE)


def test_everywhere_has_a_column_of_namespaces(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=CONFIG)
    heading, *rows = cli.ok("get", "cm", "-A").splitlines()
    assert heading.split() == ["NAMESPACE", "NAME", "DATA", "AGE"]
    assert [cli.namespace, "c1", "2"] in [row.split()[:3] for row in rows]


def test_what_chooses_a_cluster_may_stand_before_the_verb(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=CONFIG)
    space = json.loads(cli.ok("get", "cm", "c1", "-o", "json"))["metadata"]["namespace"]
    assert cli.ok("-n", space, "get", "cm", "c1", "-o", "name") == "configmap/c1\n"
    assert cli.ok(f"--namespace={space}", "get", "cm", "c1", "-o", "name") == "configmap/c1\n"
    assert '"c1" not found' in cli.fails("-n", "kube-public", "get", "cm", "c1")
    assert '"x" not found' in cli.fails("-n", space, "rollout", "status", "deploy/x")
    assert "No such option" in cli.fails("-n", "default")


def test_nothing_found_is_said_aside(cli: Cli) -> None:
    done = cli("get", "pods")
    assert (done.code, done.out) == (0, "")
    assert done.err == f"No resources found in {cli.namespace} namespace.\n"
    assert cli("get", "pods", "-A", "-l", "no=such").err == "No resources found\n"


def test_by_file_and_several_names(cli: Cli) -> None:
    file = cli.file("web.yaml", WEB)
    cli.ok("apply", "-f", file)
    assert cli.ok("get", "-f", file, "-o", "name") == "deployment.apps/web\nservice/web\n"
    assert json.loads(cli.ok("get", "deploy/web", "svc/web", "-o", "json"))["kind"] == "List"


def test_what_is_missing_does_not_hide_the_rest(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=CONFIG)
    done = cli("get", "cm", "c1", "c2")
    assert done.code == 1
    assert "c1" in done.out
    assert done.err == 'Error from server (NotFound): configmaps "c2" not found\n'


def test_pages_are_put_together(cli: Cli) -> None:
    documents = "---\n".join(CONFIG.replace("c1", f"c{n:02}") for n in range(7))
    cli.ok("create", "-f", "-", stdin=documents)
    assert len(cli.ok("get", "cm", "--chunk-size=2", "--no-headers").splitlines()) == 7


def test_watch_prints_changes_under_the_heading(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=CONFIG)
    environment = {"PATH": "/usr/bin:/bin", **cli.environment()}
    command = cli.process("get", "cm", "-w", "--output-watch-events")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=cli.home) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().split()[:3] == ["EVENT", "NAME", "DATA"]
        assert watching.stdout.readline().split()[:3] == ["ADDED", "c1", "2"]
        cli.ok("patch", "cm", "c1", "-p", '{"data": {"c": "3"}}')
        changed = watching.stdout.readline()
        assert changed.split()[:3] == ["MODIFIED", "c1", "3"]
        cli.ok("delete", "cm", "c1")
        assert watching.stdout.readline().split()[:2] == ["DELETED", "c1"]
        watching.terminate()


def test_events_in_order_and_about_one(cli: Cli) -> None:
    for number, name in enumerate(("b", "a")):
        event = {
            "metadata": {"name": f"{name}.1", "namespace": cli.namespace}, "type": "Warning" if number else "Normal",
            "reason": "Tested", "message": f"about {name}", "lastTimestamp": f"2024-01-01T00:00:0{number}Z",
            "firstTimestamp": "2024-01-01T00:00:00Z", "count": number + 1,
            "involvedObject": {"kind": "Pod", "name": name, "namespace": cli.namespace},
        }  # fmt: skip
        cli.server.ask(lambda client, event=event: client.create(Event, event))
    heading, *rows = cli.ok("events").splitlines()
    assert heading.split() == ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"]
    assert [row.split("   ")[-1].strip() for row in rows] == ["about b", "about a"]
    assert "(x2 over" in rows[1]
    assert "about b" not in cli.ok("events", "--for", "pod/a")
    assert "about b" not in cli.ok("events", "--types=Warning")


def test_top_says_when_nothing_is_measured(cli: Cli) -> None:
    assert "no measurements yet" in cli.fails("top", "nodes")


def test_api_resources(cli: Cli) -> None:
    rows = [line.split() for line in cli.ok("api-resources").splitlines()]
    assert ["deployments", "deploy", "apps/v1", "true", "Deployment"] in rows
    assert "deployments.apps" in cli.ok("api-resources", "-o", "name").split()
    assert "pods" not in cli.ok("api-resources", "--namespaced=false", "-o", "name").split()


def test_discovery_is_kept_on_disk_and_asked_again_when_broken(cli: Cli) -> None:
    cli.ok("get", "cm")
    (kept,) = (cli.home / ".cache" / "minik8s").rglob("kinds.json")
    for broken in ("", "{}", '{"format": 1, "time": 0, "kinds": []}', "[1]"):
        kept.write_text(broken)
        cli.ok("get", "cm")
        assert json.loads(kept.read_text())["kinds"]


def test_home_that_cannot_be_written(cli: Cli) -> None:
    assert cli("get", "cm", "-o", "name", env={"HOME": "/proc/nowhere"}).code == 0


def test_get_imports_nothing_heavy(cli: Cli) -> None:
    """0.2 s are kept by what is not imported: the measured time depends on the machine, this does not."""
    cli.ok("get", "cm")
    script = (
        "import sys; from minik8s.cli import cli\ntry: cli(['get', 'cm'])\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    environment = {"PATH": "/usr/bin:/bin", **cli.environment()}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    heavy = {
        "aiohttp",
        "asyncio",
        "msgspec",
        "ruamel.yaml",
        "cryptography",
        "structlog",
        "minik8s.api.kinds",
        "minik8s.apiserver",
        "minik8s.store",
    }
    assert not heavy & set(done.stdout.splitlines()[-1].split())
