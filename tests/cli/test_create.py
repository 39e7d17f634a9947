"""create out of a few words makes what kubectl makes of the same words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cluster_harness import Cli

from minik8s.cli.shorthand import container_name
from minik8s.pki import new_ca

DIGEST = "sha256:" + "0123456789abcdef" * 4
WORDS = [
    f"deployment w --image=a.example:5000/b/c:1 --image=d@{DIGEST} --port=80 --replicas=0",
    "deploy w --image a:1 -- sleep 3",
    "job j --image=a:1 -- sh -c true",
    "cm c --from-literal=a=b=c --from-file=text --from-file=k=bytes",
    "cm c --from-env-file=env",
    "configmap c --from-file=folder",
    "secret generic s --from-literal=a=b --from-file=bytes --type=example.com/t",
    "secret tls s --cert=crt.pem --key=key.pem",
    "secret docker-registry s --docker-username=u --docker-password=p --docker-email=e@example.com",
    "service clusterip s --clusterip=None --tcp=80 --tcp=81:http",
    "service nodeport s --tcp=80:8080 --node-port=30080",
    "service externalname s --external-name=example.com",
    "ns n",
    "sa s",
]


def _but_for_what_is_drawn(text: str) -> Any:
    obj = json.loads(text)
    obj = json.loads(text.replace(obj["metadata"]["uid"], "UID"))
    for name in ("creationTimestamp", "resourceVersion"):
        obj["metadata"].pop(name, None)
    if obj["kind"] == "Service" and obj["spec"].get("clusterIP", "None") != "None":
        del obj["spec"]["clusterIP"], obj["spec"]["clusterIPs"]
    return obj


@pytest.mark.kubectl
@pytest.mark.parametrize("kubectl", ["1.37"], indirect=True)
@pytest.mark.parametrize("words", WORDS)
def test_as_kubectl(cli: Cli, kubectl: Path, words: str) -> None:
    pair = new_ca("test")
    cli.file("text", "line\n")
    cli.file("env", "# comment\n\nA=b\n  C=d=e\n")
    cli.file("folder/one.ini", "1")
    cli.file("folder/inner/two", "2")
    for name, content in (("bytes", b"\xff\x00"), ("crt.pem", pair.certificate), ("key.pem", pair.key)):
        (cli.home / name).write_bytes(content)
    options, dashes, command = words.partition(" -- ")
    asked = ("create", *options.split(), "--dry-run=server", "-o", "json", *dashes.split(), *command.split())
    assert _but_for_what_is_drawn(cli.ok(*asked)) == _but_for_what_is_drawn(cli.kubectl(kubectl, *asked))


def test_it_is_created_and_a_dry_run_is_a_manifest_for_any_namespace(cli: Cli) -> None:
    assert cli.ok("create", "deployment", "w", "--image", "a:1") == "deployment.apps/w created\n"
    assert cli.fails("create", "deployment", "w", "--image", "a:1") == (
        'Error from server (AlreadyExists): deployments.apps "w" already exists'
    )
    printed = cli.ok("create", "sa", "x", "--dry-run=client", "-o", "json", "--namespace=")
    assert json.loads(printed) == {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "x"}}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("deployment w", "--image IMAGE"),
        ("deployment w x --image=a", "exactly one NAME is required, got 2"),
        ("deployment w --image=a --image=b -- sleep", "a command goes with one --image only"),
        ("job j", "one --image IMAGE"),
        ("cm c --image=a", "create configmap: --image does not go with it"),
        ("cm c -- sleep", "create configmap: a command does not go with it"),
        ("cm c --from-literal=a", "write KEY=VALUE"),
        ("cm c --from-literal=a=b --from-literal=a=c", 'the key "a" is given twice'),
        ("cm c --from-literal=a/b=c", '"a/b" is no key'),
        ("cm c --from-file=nowhere", 'the path "nowhere" cannot be read: No such file or directory'),
        ("secret s", "it knows secret generic, secret tls, secret docker-registry"),
        ("secret tls s --cert=a", "--cert FILE and --key FILE"),
        ("service clusterip s", "--tcp PORT[:TARGETPORT]"),
        ("service nodeport s --tcp=http", "write PORT or PORT:TARGETPORT"),
        ("ns n -f nowhere.yaml", "say either -f FILE or"),
        ("cronjob c", "it knows configmap, deployment, job, namespace, secret, service, serviceaccount"),
    ],
)
def test_mistakes(cli: Cli, words: str, told: str) -> None:
    assert told in cli.fails("create", *words.split())


def test_the_name_of_a_container_is_that_of_its_image() -> None:
    for image in ("web", "web:1", "a/web", "a.example:5000/b/web:1", f"a/web@{DIGEST}", f"a/web:1@{DIGEST}"):
        assert container_name(image) == "web"
