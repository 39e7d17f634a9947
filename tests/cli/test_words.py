"""JSONPath, options as kubectl takes them, which cluster is meant, completion, and `describe`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete
from cluster_harness import Cli
from manifests_text import CONFIG, POD, WEB

from minik8s.api.kinds.event import Event
from minik8s.api.kinds.pod import Pod
from minik8s.cli import cli as minik8s
from minik8s.cli import jsonpath
from minik8s.cli.connection import Choice, find_entry
from minik8s.cli.describe_text import align
from minik8s.cli.manifests import Manifest
from minik8s.cli.verb import duration

ITEMS = {"items": [{"name": "a", "n": 1, "t": [1, 2, 3]}, {"name": "b", "n": 2, "x.y": "dot", "on": True}]}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.items[0].name}", "a"), ("{.items[*].name}", "a b"), ("{.items[-1].name}", "b"), ("{.items[5].name}", ""),
        ("{.items[0].t[0:2]}", "1 2"), ("{.items[?(@.n==2)].name}", "b"), ("{.items[?(@.n>1)].name}", "b"),
        ("{.items[?(@.name!='a')].name}", "b"), ("{.items[?(@.on)].name}", "b"), ("{.items[?(@.on==true)].n}", "2"),
        ("{..name}", "a b"), ("{.items[1]['x.y']}", "dot"), ("{.items[1].x\\.y}", "dot"), ("{$.items[0].n}", "1"),
        ("{range .items[*]}{.name}={.n};{end}", "a=1;b=2;"), ("n: {.items[0].n}{'\\n'}", "n: 1\n"),
        ("{.items[0].t}", "[1,2,3]"), ("{.items[0]['name','n']}", "a 1"), ("{.nope.deeper}", ""),
        ("{range .items[*]}{range .t[*]}{@}{end}{.name} {end}", "123a b "),
    ],
)  # fmt: skip
def test_jsonpath(template: str, text: str) -> None:
    assert jsonpath.render(template, ITEMS) == text


@pytest.mark.parametrize("template", ["{.a", "{range .a}", "{end}", "{.a[x]}", "{.a[?(@.x==y)]}", "{.a b}", "{'x}"])
def test_jsonpath_that_is_malformed(template: str) -> None:
    with pytest.raises(jsonpath.JsonPathError):
        jsonpath.render(template, {"a": []})


def test_durations() -> None:
    assert [duration(text) for text in ("5", "90s", "1m30s", "2h", "500ms", "-1s")] == [5, 90, 90, 7200, 0.5, -1]
    with pytest.raises(click.ClickException):
        duration("soon")


def test_flags_take_false_and_bare_options_take_nothing(cli: Cli) -> None:
    cli.ok("apply", "--dry-run", "-f", cli.file("x.yaml", CONFIG))
    assert cli("get", "cm", "c1").code == 1
    cli.ok("apply", "-f", "x.yaml")
    assert cli.ok("get", "cm", "c1", "--watch=false", "--show-labels=true").splitlines()[0].endswith("LABELS")
    assert cli.ok("delete", "--wait=false", "cm", "c1").startswith('configmap "c1" deleted')
    assert "neither true nor false" in cli.fails("get", "cm", "--watch=perhaps")


def config(folder: Path, name: str, server: str, **context: str) -> Path:
    path = folder / name
    document = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **context}}],
        "clusters": [{"name": name, "cluster": {"server": server}}],
        "users": [{"name": name, "user": {"token": f"of-{name}"}}],
    }
    path.write_text(json.dumps(document))
    return path


def test_which_cluster(tmp_path: Path) -> None:
    one = config(tmp_path, "one", "https://one:6443", namespace="ns1")
    two = config(tmp_path, "two", "https://two:6443")
    both = {"KUBECONFIG": f"{one}:{two}", "HOME": str(tmp_path)}
    entry = find_entry(Choice(), both)
    assert (entry.cluster["server"], entry.user["token"], entry.namespace) == ("https://one:6443", "of-one", "ns1")
    assert find_entry(Choice(context="two"), both).cluster["server"] == "https://two:6443"
    assert find_entry(Choice(kubeconfig=str(two)), both).user["token"] == "of-two"
    chosen = find_entry(Choice(server="https://x", token="t"), both)
    assert (chosen.cluster["server"], chosen.user) == ("https://x", {"token": "t"})
    with pytest.raises(click.ClickException, match='no context "three"; there are: one, two'):
        find_entry(Choice(context="three"), both)
    (tmp_path / ".kube").mkdir()
    config(tmp_path / ".kube", "config", "https://home:1")
    assert find_entry(Choice(), {"HOME": str(tmp_path)}).cluster["server"] == "https://home:1"
    (tmp_path / "data").mkdir()
    config(tmp_path / "data", "admin.kubeconfig", "https://own:1")
    own = {"HOME": "/nowhere", "MINIK8S_DATA_DIR": str(tmp_path / "data")}
    assert find_entry(Choice(), own).cluster["server"] == "https://own:1"


def test_a_worker_has_no_kubeconfig_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    with pytest.raises(click.ClickException, match="this machine is a node; name a copy of the master's"):
        find_entry(Choice(), {"HOME": "/nowhere", "MINIK8S_DATA_DIR": str(tmp_path)})


def test_kubeconfig_in_yaml_with_files(cli: Cli) -> None:
    import base64

    held = json.loads(cli.kubeconfig.read_text())
    cluster, user = held["clusters"][0]["cluster"], held["users"][0]["user"]
    for name, data in (
        ("ca.crt", cluster["certificate-authority-data"]),
        ("me.crt", user["client-certificate-data"]),
        ("me.key", user["client-key-data"]),
    ):
        (cli.home / name).write_bytes(base64.b64decode(data))
    file = cli.file("conf.yaml", f"""
apiVersion: v1
kind: Config
current-context: c
contexts: [{{name: c, context: {{cluster: c, user: u, namespace: {cli.namespace}}}}}]
clusters: [{{name: c, cluster: {{server: "{cluster['server']}", certificate-authority: ca.crt}}}}]
users: [{{name: u, user: {{client-certificate: me.crt, client-key: me.key}}}}]
""")  # fmt: skip
    assert cli("get", "cm", "--kubeconfig", file).err == f"No resources found in {cli.namespace} namespace.\n"
    assert "certificate-authority" not in cli.fails("get", "cm", "--kubeconfig", cli.file("bad.yaml", "a: b: c"))


def complete(cli: Cli, monkeypatch: pytest.MonkeyPatch, *args: str, word: str = "") -> list[str]:
    for key, value in cli.environment().items():
        monkeypatch.setenv(key, value)
    return [item.value for item in ShellComplete(minik8s, {}, "minik8s", "_X").get_completions(list(args), word)]


def test_completion(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    cli.ok("apply", "-f", "-", stdin=f"{POD}---\n{CONFIG}")
    here = ("-n", cli.namespace)
    assert complete(cli, monkeypatch, word="desc") == ["describe"]
    assert complete(cli, monkeypatch, "func", "init", "x", "--model", word="as") == ["async", "asgi"]
    assert "deployments" in complete(cli, monkeypatch, "get", word="dep")
    assert complete(cli, monkeypatch, "get", *here, "pods") == ["p1"]
    assert complete(cli, monkeypatch, "describe", *here, word="cm/c") == ["cm/c1"]
    assert complete(cli, monkeypatch, "logs", *here) == ["p1"]
    assert complete(cli, monkeypatch, "get", "-n", word=cli.namespace) == [cli.namespace]
    assert complete(cli, monkeypatch, "get", "podz") == []
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    assert ShellComplete(minik8s, {}, "minik8s", "_X").get_completions(["get", "pods"], "") == []


def test_places_of_fields() -> None:
    manifest = Manifest({}, "x.yaml", {(): (1, 1), ("spec",): (3, 1), ("spec", "list", 1, "a"): (7, 5)})
    assert manifest.where("spec.other") == "x.yaml:3:1"
    assert manifest.where("nowhere") == "x.yaml:1:1"


# -- describe


def test_columns_end_where_lines_have_none() -> None:
    assert align(["a:\t1", "bbbb:\t2", "x", "c\td\te", "ccc\td\te"]) == "a:     1\nbbbb:  2\nx\nc    d  e\nccc  d  e\n"


def test_describe_pod_tells_why_it_is_not_scheduled(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=POD)
    why = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint {a: b}."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    cli.server.ask(
        lambda client: client.patch(
            Pod, "p1", cli.namespace, {"status": {"conditions": [condition]}}, subresource="status"
        )
    )
    uid = cli.ok("get", "pod", "p1", "-o", "jsonpath={.metadata.uid}")
    event: dict[str, Any] = {
        "metadata": {"name": "p1.1", "namespace": cli.namespace}, "type": "Warning", "reason": "FailedScheduling",
        "message": why, "lastTimestamp": "2024-01-01T00:00:00Z", "source": {"component": "scheduler"},
        "involvedObject": {"kind": "Pod", "name": "p1", "namespace": cli.namespace, "uid": uid},
    }  # fmt: skip
    cli.server.ask(lambda client: client.create(Event, event))
    text = cli.ok("describe", "pod", "p1")
    lines = [line.strip() for line in text.splitlines()]
    assert "Not Scheduled:    0/2 nodes are available:" in lines
    assert "1 Insufficient cpu," in lines
    assert any(line.startswith("Warning  FailedScheduling") and line.endswith(why) for line in lines)
    assert "Controlled By" not in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("deploy", "web"), ("Replicas:               3 desired | 0 updated", "RollingUpdateStrategy:  25% max unavailable", "NewReplicaSet:", "80/TCP")),  # noqa: E501
        (("svc/web",), ("TargetPort:               http/TCP", "Selector:                 app=web", "Events:                   <none>")),  # noqa: E501
        (("cm", "c1"), ("Data\n====\na:\n----\n1\n",)),
        (("secret", "s1"), ("password:  6 bytes",)),
        (("ns", "default"), ("Status:\n  Phase:  Active",)),
        (("job", "j1"), ("Pods Statuses:    0 Active / 0 Succeeded / 0 Failed",)),
        (("deploy", "we"), ("Name:                   web",)),
    ],
)  # fmt: skip
def test_describe(cli: Cli, words: tuple[str, ...], expected: tuple[str, ...]) -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s1}\nstringData: {password: hunter}\n"
    job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j1}\nspec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}\n"  # noqa: E501
    cli.ok("apply", "-f", "-", stdin="---\n".join((WEB, CONFIG, secret, job)))
    text = cli.ok("describe", *words)
    for part in expected:
        assert part in text
    assert "hunter" not in text


def test_describe_what_is_not_there(cli: Cli) -> None:
    assert cli.fails("describe", "pod", "x") == 'Error from server (NotFound): pods "x" not found'
