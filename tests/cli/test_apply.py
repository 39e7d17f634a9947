"""Apply: what the three-way patch decides, and that kubectl and minik8s go on where the other has left off."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from cluster_harness import Cli
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests_text import CONFIG, WEB

from minik8s.api.kinds.deployment import Deployment
from minik8s.api.patch import merge_patch, strategic_merge
from minik8s.api.schema import Schema
from minik8s.cli.apply import LAST_APPLIED, annotation_text, schema_root, three_way, with_annotation

ROOT = schema_root("apps/v1", "Deployment")
assert ROOT is not None
SCHEMA = Schema(ROOT)
Json = dict[str, Any]


def deployment(*containers: Json, **spec: Any) -> Json:
    return {"metadata": {"name": "web"}, "spec": {**spec, "template": {"spec": {"containers": list(containers)}}}}


def container(name: str, **more: Any) -> Json:
    return {"name": name, **more}


def after(original: Json | None, modified: Json, live: Json) -> Json:
    return strategic_merge(live, three_way(original, modified, live, ROOT), SCHEMA)


def test_nothing_to_do_is_an_empty_patch() -> None:
    wanted = deployment(container("a", image="x"), replicas=2)
    live = copy.deepcopy(wanted) | {"status": {"replicas": 2}}
    live["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Always"  # a default
    assert three_way(wanted, wanted, live, ROOT) == {}


def test_what_others_set_stays_and_what_was_ours_goes() -> None:
    before = deployment(container("a", image="x", env=[{"name": "A", "value": "1"}]), replicas=2, paused=True)
    live = deployment(
        container("a", image="x", env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]),
        container("sidecar"),
        replicas=7,
        paused=True,
    )
    result = after(before, deployment(container("a", image="y")), live)
    first, second = result["spec"]["template"]["spec"]["containers"]
    assert first == {"name": "a", "image": "y", "env": [{"name": "B", "value": "2"}]}
    assert second == {"name": "sidecar"}
    assert "replicas" not in result["spec"]
    assert "paused" not in result["spec"]


def test_a_container_of_ours_that_is_gone_is_deleted_and_order_follows_the_manifest() -> None:
    before = deployment(container("a"), container("b"))
    live = deployment(container("a"), container("b"), container("injected"))
    names = [
        c["name"]
        for c in after(before, deployment(container("c"), container("a")), live)["spec"]["template"]["spec"][
            "containers"
        ]
    ]
    assert names.index("c") < names.index("a")
    assert set(names) == {"a", "c", "injected"}


def test_a_changed_strategy_clears_what_belonged_to_the_old_one() -> None:
    live = deployment(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}})
    wanted = deployment(strategy={"type": "Recreate"})
    assert after(wanted, wanted, live)["spec"]["strategy"] == {"type": "Recreate"}


def test_a_volume_that_changes_its_source() -> None:
    def volume(**source: Any) -> Json:
        return {"spec": {"template": {"spec": {"volumes": [{"name": "v", **source}]}}}}

    result = after(volume(emptyDir={}), volume(hostPath={"path": "/x"}), volume(emptyDir={}))
    assert result["spec"]["template"]["spec"]["volumes"] == [{"name": "v", "hostPath": {"path": "/x"}}]


def test_lists_of_scalars_merge_as_sets() -> None:
    before, wanted = ({"metadata": {"finalizers": names}} for names in (["a", "b"], ["b", "c"]))
    assert set(after(before, wanted, {"metadata": {"finalizers": ["a", "b", "x"]}})["metadata"]["finalizers"]) == {
        "b",
        "c",
        "x",
    }


def test_without_a_schema_lists_are_replaced() -> None:
    patch = three_way({"a": [1], "b": 1}, {"a": [2]}, {"a": [1], "b": 1, "c": 1}, None)
    assert patch == {"a": [2], "b": None}


def test_annotation_is_written_as_go_writes_it() -> None:
    assert annotation_text({"b": "<&>", "a": "é"}) == '{"a":"é","b":"\\u003c\\u0026\\u003e"}\n'
    twice = with_annotation(with_annotation({"kind": "X", "metadata": {"name": "x"}}))
    assert json.loads(twice["metadata"]["annotations"][LAST_APPLIED]) == {
        "kind": "X",
        "metadata": {"name": "x", "annotations": {}},
    }


NAMES = st.lists(st.sampled_from("abcd"), unique=True, max_size=4)
CONTAINERS = NAMES.flatmap(
    lambda names: st.tuples(
        *(
            st.fixed_dictionaries(
                {"name": st.just(n)}, optional={"image": st.sampled_from("xyz"), "tty": st.booleans()}
            )
            for n in names
        )
    ).map(list)
)
SPECS = st.fixed_dictionaries({}, optional={"replicas": st.integers(0, 3), "paused": st.booleans()})


@settings(max_examples=300, deadline=None)
@given(CONTAINERS, CONTAINERS, CONTAINERS, SPECS, SPECS, SPECS)
def test_law_applying_makes_it_so_and_applying_again_does_nothing(
    before: list[Json], wanted: list[Json], held: list[Json], old: Json, new: Json, now: Json
) -> None:
    original, modified, live = deployment(*before, **old), deployment(*wanted, **new), deployment(*held, **now)
    untouched = copy.deepcopy((original, modified, live))
    result = after(original, modified, live)
    assert (original, modified, live) == untouched
    assert three_way(modified, modified, result, ROOT) == {}
    assert {k: v for k, v in result["spec"].items() if k in new} == new
    found = {c["name"]: c for c in result["spec"]["template"]["spec"].get("containers", [])}
    for item in wanted:
        assert item.items() <= found[item["name"]].items()
    for item in before:
        if item["name"] not in {c["name"] for c in wanted}:
            assert item["name"] not in found


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.integers()), st.dictionaries(st.sampled_from("abc"), st.integers()))
def test_law_without_a_schema(before: Json, wanted: Json) -> None:
    assert merge_patch(before, three_way(before, wanted, before, None)) == wanted


# -- against the server, and beside kubectl


def test_created_configured_unchanged(cli: Cli) -> None:
    file = cli.file("web.yaml", WEB)
    assert cli.ok("apply", "-f", file) == "deployment.apps/web created\nservice/web created\n"
    assert cli.ok("apply", "-f", file) == "deployment.apps/web unchanged\nservice/web unchanged\n"
    cli.file("web.yaml", WEB.replace("replicas: 3", "replicas: 4"))
    assert cli.ok("apply", "-f", file) == "deployment.apps/web configured\nservice/web unchanged\n"
    assert cli.ok("get", "deploy", "web", "-o", "jsonpath={.spec.replicas}") == "4"


def test_fields_of_others_survive(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB.replace("  replicas: 3\n", ""))
    cli.ok("scale", "deploy", "web", "--replicas=5")
    assert "deployment.apps/web unchanged" in cli.ok("apply", "-f", "-", stdin=WEB.replace("  replicas: 3\n", ""))
    cli.ok("apply", "-f", "-", stdin=WEB.replace("  replicas: 3\n", "").replace('{name: A, value: "1"}, ', ""))
    assert cli.ok("get", "deploy", "web", "-o", "jsonpath={.spec.replicas} {..env[*].name}") == "5 B"


def test_dry_runs_change_nothing(cli: Cli) -> None:
    assert cli.ok("apply", "--dry-run=client", "-f", "-", stdin=CONFIG) == "configmap/c1 created (dry run)\n"
    assert cli.ok("apply", "--dry-run=server", "-f", "-", stdin=CONFIG) == "configmap/c1 created (server dry run)\n"
    assert cli("get", "cm", "c1").code == 1
    cli.ok("apply", "-f", "-", stdin=CONFIG)
    changed = CONFIG.replace("'2'", "'3'")
    for mode in ("client", "server"):
        shown = cli.ok("apply", f"--dry-run={mode}", "-o", "jsonpath={.data.b}", "-f", "-", stdin=changed)
        assert shown == "3"
    assert cli.ok("get", "cm", "c1", "-o", "jsonpath={.data.b}") == "2"


def test_folder_and_list(cli: Cli) -> None:
    cli.file("d/a.yaml", CONFIG)
    cli.file("d/sub/b.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"l{n}"}} for n in range(2)]}))  # fmt: skip
    assert cli.ok("apply", "-f", "d") == "configmap/c1 created\n"
    assert cli.ok("apply", "-R", "-f", "d") == "configmap/c1 unchanged\nconfigmap/l0 created\nconfigmap/l1 created\n"


def test_one_refused_object_does_not_stop_the_others(cli: Cli) -> None:
    done = cli("apply", "-f", "-", stdin=f"{WEB.replace('replicas: 3', 'replicas: -1')}---\n{CONFIG}")
    assert done.code == 1
    assert done.out == "service/web created\nconfigmap/c1 created\n"
    assert "spec.replicas" in done.err


def test_an_object_that_was_created_gets_its_annotation_with_a_warning(cli: Cli) -> None:
    cli.ok("create", "-f", "-", stdin=CONFIG)
    done = cli("apply", "-f", "-", stdin=CONFIG)
    assert (done.code, done.out) == (0, "configmap/c1 configured\n")
    assert "was not made by apply" in done.err


def test_force_makes_anew_what_cannot_be_changed(cli: Cli) -> None:
    cli.ok("apply", "-f", "-", stdin=WEB)
    other = WEB.replace("{app: web}", "{app: v2}")
    assert cli("apply", "-f", "-", stdin=other).code == 1
    assert "deployment.apps/web configured" in cli.ok("apply", "--force", "-f", "-", stdin=other)


def test_older_dialects_are_taken_with_a_warning(cli: Cli) -> None:
    text = """
apiVersion: v1
kind: Replicaset
metadata: {name: rs}
spec:
  replicas: 1
  selector: {matchLabels: {a: b}}
  template:
    metadata: {labels: {a: b}}
    spec: {containers: [{name: c, image: x}]}
"""
    done = cli("apply", "-f", "-", stdin=text)
    assert (done.code, done.out) == (0, "replicaset.apps/rs created\n"), done
    assert "older dialect" in done.err


@pytest.mark.kubectl
def test_either_goes_on_where_the_other_left_off(cli: Cli, kubectl: Path) -> None:
    def theirs(text: str) -> str:
        return cli.kubectl(kubectl, "apply", "--validate=false", "-f", "-", stdin=text)

    cli.ok("apply", "-f", "-", stdin=WEB)
    assert theirs(WEB) == "deployment.apps/web unchanged\nservice/web unchanged\n"
    fewer = WEB.replace('{name: A, value: "1"}, ', "").replace("replicas: 3", "replicas: 2")
    assert theirs(fewer) == "deployment.apps/web configured\nservice/web unchanged\n"
    assert cli.ok("apply", "-f", "-", stdin=fewer) == "deployment.apps/web unchanged\nservice/web unchanged\n"
    assert cli.ok("apply", "-f", "-", stdin=WEB) == "deployment.apps/web configured\nservice/web unchanged\n"
    assert cli.ok("get", "deploy", "web", "-o", "jsonpath={..env[*].name}") == "A B"
    assert theirs(WEB) == "deployment.apps/web unchanged\nservice/web unchanged\n"
    held = cli.server.ask(lambda client: client.raw(client.resource(Deployment), "web", cli.namespace))
    cli.ok("delete", "deploy", "web")
    theirs(WEB)
    again = cli.server.ask(lambda client: client.raw(client.resource(Deployment), "web", cli.namespace))
    assert held["metadata"]["annotations"][LAST_APPLIED] == again["metadata"]["annotations"][LAST_APPLIED]
