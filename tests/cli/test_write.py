"""Writing: create, patch, label, annotate, delete, edit."""

from __future__ import annotations

import json
import stat
import threading
from pathlib import Path

import pytest
from cluster_harness import Cli
from manifests_text import CONFIG, POD, WEB


@pytest.mark.kubectl
@pytest.mark.parametrize("kubectl", ["1.37"], indirect=True)
@pytest.mark.parametrize(
    ("before", "args"),
    [
        ("", ("create", "-f", "x.yaml")),
        ("", ("create", "-f", "x.yaml", "--dry-run=client")),
        (CONFIG, ("delete", "cm", "c1", "--wait=false")),
        (CONFIG, ("delete", "-f", "x.yaml")),
        (CONFIG, ("delete", "cm/c1", "-o", "name")),
        (CONFIG, ("label", "cm", "c1", "x=y")),
        (CONFIG, ("annotate", "cm", "c1", "x=y")),
        (CONFIG, ("patch", "cm", "c1", "-p", '{"data":{"a":"9"}}')),
        (CONFIG, ("patch", "cm", "c1", "-p", '{"data":{"a":"1"}}')),
        (CONFIG, ("patch", "cm", "c1", "--type=json", "-p", '[{"op":"remove","path":"/data/a"}]')),
    ],
)
def test_the_same_words_as_the_newest_kubectl(cli: Cli, kubectl: Path, before: str, args: tuple[str, ...]) -> None:
    cli.file("x.yaml", CONFIG)
    said = []
    for run in (lambda: cli.ok(*args), lambda: cli.kubectl(kubectl, *args)):
        if before:
            cli.ok("apply", "-f", "-", stdin=before)
        said.append(run())
        cli("delete", "cm", "c1", "--ignore-not-found")
    assert said[0] == said[1]


def test_create_namespace(cli: Cli) -> None:
    name = f"{cli.namespace}-new"
    assert cli.ok("create", "ns", name) == f"namespace/{name} created\n"
    assert cli.ok("get", "ns", name, "-o", "name") == f"namespace/{name}\n"


def test_generate_name_is_for_create(cli: Cli) -> None:
    text = CONFIG.replace("{name: c1}", "{generateName: c-}")
    assert cli.ok("create", "-f", "-", stdin=text).startswith("configmap/c-")
    assert "apply needs a name" in cli.fails("apply", "-f", "-", stdin=text)


def test_labels(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=CONFIG)
    assert cli.ok("label", "cm", "c1", "a=1", "b=2") == "configmap/c1 labeled\n"
    assert "a is 1 already; --overwrite" in cli.fails("label", "cm", "c1", "a=3")
    assert cli.ok("label", "cm/c1", "a=3", "--overwrite") == "configmap/c1 labeled\n"
    assert cli.ok("label", "cm/c1", "a=3") == "configmap/c1 not labeled\n"
    assert cli.ok("label", "cm/c1", "b-") == "configmap/c1 unlabeled\n"
    assert cli.ok("label", "cm/c1", "--list") == "a=3\n"
    assert cli.ok("get", "cm", "-l", "a=3", "-o", "name") == "configmap/c1\n"
    assert cli.ok("annotate", "cm", "--all", "note=a sentence").count("annotated") >= 1


def test_patches(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB)
    cli.ok("patch", "deploy", "web", "-p", "spec:\n  replicas: 2\n")
    cli.ok("patch", "deploy/web", "--type=json", "-p", '[{"op": "add", "path": "/spec/paused", "value": true}]')
    cli.ok("patch", "deploy/web", "--subresource=scale", "--type=merge", "-p", '{"spec": {"replicas": 4}}')
    assert cli.ok("get", "deploy", "web", "-o", "jsonpath={.spec.replicas} {.spec.paused}") == "4 true"
    assert "a patch is an object" in cli.fails("patch", "deploy", "web", "-p", "5")
    assert "--patch:1:" in cli.fails("patch", "deploy", "web", "-p", "{a: b: c}")


def test_delete_by_label_all_and_file(cli: Cli) -> None:
    for name in ("c1", "c2", "c3"):
        cli.ok("apply", "-f", "-", stdin=CONFIG.replace("c1", name))
    cli.ok("label", "cm", "c1", "x=y")
    assert cli.ok("delete", "cm", "-l", "x=y") == f'configmap "c1" deleted from {cli.namespace} namespace\n'
    assert cli.ok("delete", "cm", "--all", "--dry-run=client").count("(dry run)") >= 2
    cli.ok("delete", "cm", "--all")
    assert cli.ok("get", "cm", "-o", "name") in ("", "configmap/kube-root-ca.crt\n")


def test_delete_waits_for_finalizers(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=CONFIG.replace("{name: c1}", "{name: c1, finalizers: [x.example/y]}"))
    done = cli("delete", "cm", "c1", "--timeout=300ms")
    assert done.code == 1
    assert "timed out waiting until configmap/c1 is gone" in done.err
    deleting = threading.Thread(target=lambda: cli.run("delete", "cm", "c1"))
    deleting.start()
    cli.ok("patch", "cm", "c1", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    deleting.join(20)
    assert not deleting.is_alive()
    assert cli("get", "cm", "c1").code == 1


@pytest.mark.parametrize(
    ("flags", "grace", "propagation"),
    [
        ((), None, "Background"), (("--cascade=orphan",), None, "Orphan"), (("--cascade=foreground",), None, "Foreground"),  # noqa: E501
        (("--grace-period=7",), 7, "Background"), (("--force",), 0, "Background"), (("--now",), 1, "Background"),
        (("--grace-period=0",), 1, "Background"), (("--grace-period=0", "--force", "--cascade=false"), 0, "Orphan"),
    ],
)  # fmt: skip
def test_delete_options(flags: tuple[str, ...], grace: int | None, propagation: str) -> None:
    from minik8s.cli.delete import delete, delete_options

    body = delete_options(delete.make_context("delete", ["pod", "x", *flags]).params)
    assert (body.get("gracePeriodSeconds"), body["propagationPolicy"]) == (grace, propagation)


def editor(cli: Cli, script: str) -> dict[str, str]:
    path = cli.home / "editor"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"EDITOR": str(path)}


def test_edit(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB)
    assert (
        cli.ok("edit", "deploy", "web", env=editor(cli, 'sed -i "s/replicas: 3/replicas: 6/" "$1"'))
        == "deployment.apps/web edited\n"
    )
    assert cli.ok("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "6"
    unchanged = cli("edit", "deploy", "web", env={"EDITOR": "true"})
    assert (unchanged.code, unchanged.out, unchanged.err) == (0, "", "Edit cancelled, no changes made.\n")
    cli.ok(
        "edit", "deploy", "web", "-o", "json", env=editor(cli, 'sed -i "s/\\"replicas\\": 6/\\"replicas\\": 1/" "$1"')
    )
    assert cli.ok("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "1"


def test_edit_opens_again_with_the_reason_and_keeps_the_text(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB)
    # The first time it writes nonsense, the second it must find both its text and the reason, and mends it.
    script = """
if grep -q "replicas: -3" "$1"; then
  grep -q "# The Deployment.apps .web. is invalid: spec.replicas" "$1" && sed -i "s/replicas: -3/replicas: 8/" "$1"
else sed -i "s/replicas: 3/replicas: -3/" "$1"; fi"""
    cli.ok("edit", "deploy", "web", env=editor(cli, script))
    assert cli.ok("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "8"
    done = cli("edit", "deploy", "web", env=editor(cli, 'sed -i "s/replicas: 8/replicas: -8/" "$1"'))
    assert done.code == 1
    saved = Path(done.err.split("the refused text is in ")[1].split(":")[0])
    assert "replicas: -8" in saved.read_text()
    saved.unlink()
    assert "the editor" in cli.fails("edit", "deploy", "web", env={"EDITOR": "/nowhere/ed"})


def test_output_of_writing_verbs(cli: Cli) -> None:
    assert json.loads(cli.ok("create", "-o", "json", "-f", "-", stdin=POD))["metadata"]["name"] == "p1"
    assert cli.ok("apply", "-o", "name", "-f", "-", stdin=CONFIG) == "configmap/c1\n"
