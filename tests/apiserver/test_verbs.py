"""The generic verbs, as clients see them."""

from __future__ import annotations

import asyncio

from api_harness import Api, config_map, pod

CMS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"


async def test_create_get_list(api: Api) -> None:
    made = await api.post(CMS, config_map("a", data={"k": "v"}))
    assert made.code == 201
    meta = made["metadata"]
    assert meta["uid"]
    assert meta["resourceVersion"]
    assert meta["creationTimestamp"] == "2023-11-14T22:13:20Z"
    assert (await api.get(f"{CMS}/a")).body == made.body
    listed = await api.get(CMS)
    assert listed["kind"] == "ConfigMapList"
    assert listed["items"] == [made.body]
    assert int(listed["metadata"]["resourceVersion"]) >= int(meta["resourceVersion"])
    assert (await api.get("/api/v1/configmaps/"))["items"] == [made.body]
    assert (await api.get("/api/v1/namespaces/other/configmaps"))["items"] == []


async def test_refusals_of_create(api: Api) -> None:
    await api.post(CMS, config_map("a"))
    again = await api.post(CMS, config_map("a"))
    assert (again.code, again.reason) == (409, "AlreadyExists")
    assert again.message == 'configmaps "a" already exists'
    bad = await api.post(CMS, config_map("My_Config"))
    assert bad.code == 422
    assert "my-config" in bad.message
    assert bad["details"]["causes"][0]["field"] == "metadata.name"
    wrong = await api.post(CMS, {**config_map("b"), "metadata": {"name": "b", "namespace": "other"}})
    assert wrong.code == 400
    assert (await api.post(CMS, {**config_map("b"), "kind": "Secret"})).code == 400
    assert (await api.post(CMS, {**config_map("b"), "apiVersion": "v2"})).code == 400
    assert (await api.post(CMS, {"metadata": {}})).code == 422
    assert (await api.post(CMS, {**config_map("b"), "metadata": {"name": "b", "resourceVersion": "3"}})).code == 400
    assert (await api.post("/api/v1/configmaps", config_map("b"))).code == 405
    assert (await api.post(f"{CMS}/b", config_map("b"))).code == 405


async def test_generate_name(api: Api) -> None:
    names = {(await api.post(CMS, {"metadata": {"generateName": "run-"}}))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("run-") and len(name) == 9 for name in names)


async def test_not_found_in_words(api: Api) -> None:
    missing = await api.get(f"{CMS}/nope")
    assert missing.message == 'configmaps "nope" not found'
    assert missing["details"] == {"name": "nope", "kind": "configmaps"}
    assert (await api.get("/api/v1/unicorns")).code == 404
    assert (await api.get("/apis/apps/v7/deployments")).code == 404
    assert (await api.get("/api/v1/namespaces/default/pods/../secrets")).code == 400
    assert (await api.get("/api/v1/namespaces/default/pods/%2e%2e")).code == 400
    assert (await api.get("/api/v1/namespaces/default/pods/a%2Fb")).code == 400


async def test_field_validation(api: Api) -> None:
    doc = {**config_map("a"), "foo": 1}
    warned = await api.post(CMS, doc)
    assert warned.code == 201
    assert warned.raw.headers["warning"] == '299 - "unknown field \\"foo\\""'
    assert "foo" not in warned.body
    doc["metadata"]["name"] = "b"
    strict = await api.post(f"{CMS}?fieldValidation=Strict", doc)
    assert (strict.code, strict.message) == (400, 'strict decoding error: unknown field "foo"')
    silent = await api.post(f"{CMS}?fieldValidation=Ignore", doc)
    assert silent.code == 201
    assert not silent.raw.headers
    twice = b'{"metadata":{"name":"c"},"data":{"a":"1","a":"2"}}'
    assert "duplicate field" in (await api.post(f"{CMS}?fieldValidation=Strict", twice)).message


async def test_dry_run_stores_nothing(api: Api) -> None:
    made = await api.post(f"{CMS}?dryRun=All", config_map("a"))
    assert made.code == 201
    assert made["metadata"]["uid"]
    assert (await api.get(f"{CMS}/a")).code == 404
    await api.post(CMS, config_map("a"))
    assert (await api.post(f"{CMS}?dryRun=All", config_map("a"))).code == 409
    patched = await api.patch(f"{CMS}/a?dryRun=All", {"data": {"k": "v"}})
    assert patched["data"] == {"k": "v"}
    assert "data" not in (await api.get(f"{CMS}/a")).body
    assert (await api.delete(f"{CMS}/a?dryRun=All")).code == 200
    assert (await api.get(f"{CMS}/a")).code == 200


async def test_update_conflicts(api: Api) -> None:
    first = (await api.post(CMS, config_map("a"))).body
    second = await api.put(f"{CMS}/a", {**first, "data": {"k": "1"}})
    assert second.code == 200
    stale = await api.put(f"{CMS}/a", {**first, "data": {"k": "2"}})
    assert (stale.code, stale.reason) == (409, "Conflict")
    assert stale.message == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    blind = await api.put(f"{CMS}/a", config_map("a", data={"k": "3"}))
    assert blind["data"] == {"k": "3"}
    assert blind["metadata"]["uid"] == first["metadata"]["uid"]
    assert blind["metadata"]["creationTimestamp"] == first["metadata"]["creationTimestamp"]
    assert (await api.put(f"{CMS}/a", config_map("b"))).code == 400
    assert (await api.put(f"{CMS}/zzz", config_map("zzz"))).code == 404
    other = await api.put(f"{CMS}/a", config_map("a", metadata={"uid": "123"}))
    assert (other.code, other.reason) == (409, "Conflict")


async def test_an_update_that_changes_nothing_is_not_written(api: Api) -> None:
    first = (await api.post(CMS, config_map("a", data={"k": "v"}))).body
    assert (await api.put(f"{CMS}/a", first)).body == first
    assert (await api.patch(f"{CMS}/a", {"data": {"k": "v"}})).body == first


async def test_patches(api: Api) -> None:
    await api.post(PODS, pod("web"))
    merged = await api.patch(f"{PODS}/web", {"metadata": {"labels": {"a": "1", "app": None}}})
    assert merged["metadata"]["labels"] == {"a": "1"}
    tested = await api.patch(
        f"{PODS}/web",
        [
            {"op": "test", "path": "/metadata/labels/a", "value": "1"},
            {"op": "replace", "path": "/metadata/labels/a", "value": "2"},
        ],
        "json-patch",
    )
    assert tested["metadata"]["labels"] == {"a": "2"}
    strategic = await api.patch(
        f"{PODS}/web", {"spec": {"containers": [{"name": "main", "image": "lab/busybox:2"}]}}, "strategic-merge-patch"
    )
    assert strategic.code == 200, strategic.body
    assert strategic["spec"]["containers"][0]["image"] == "lab/busybox:2"
    assert len(strategic["spec"]["containers"]) == 1
    applied = await api.call("PATCH", f"{PODS}/web", b"{}", content_type="application/apply-patch+yaml")
    assert (applied.code, applied.reason) == (415, "UnsupportedMediaType")
    assert (await api.call("PATCH", f"{PODS}/web", b"{}", content_type="text/plain")).code == 415
    assert (await api.patch(f"{PODS}/web", b"{")).code == 400
    stale = await api.patch(f"{PODS}/web", {"metadata": {"resourceVersion": "1", "labels": {"x": "y"}}})
    assert stale.code == 409


async def test_patches_at_once_all_count(api: Api) -> None:
    await api.post(CMS, config_map("a"))
    answers = await asyncio.gather(*(api.patch(f"{CMS}/a", {"data": {f"k{i}": "v"}}) for i in range(20)))
    assert {a.code for a in answers} == {200}
    assert len((await api.get(f"{CMS}/a"))["data"]) == 20


async def test_status_and_spec_are_apart(api: Api) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    spec = {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    }
    made = await api.post(path, {"metadata": {"name": "d"}, "spec": spec, "status": {"replicas": 7}})
    assert made.code == 201, made.body
    assert made["metadata"]["generation"] == 1
    status = await api.patch(f"{path}/d/status", {"status": {"replicas": 3}, "spec": {"replicas": 9}})
    assert status["status"]["replicas"] == 3
    assert status["spec"].get("replicas") != 9
    assert status["metadata"]["generation"] == 1
    scaled = await api.patch(f"{path}/d", {"spec": {"replicas": 9}, "status": {"replicas": 100}})
    assert scaled["status"]["replicas"] == 3
    assert scaled["metadata"]["generation"] == 2
    labelled = await api.patch(f"{path}/d", {"metadata": {"labels": {"x": "y"}}})
    assert labelled["metadata"]["generation"] == 2


async def test_finalizers_hold_an_object(api: Api) -> None:
    await api.post(CMS, config_map("a", metadata={"finalizers": ["example.com/wait"]}))
    first = await api.delete(f"{CMS}/a")
    assert first["metadata"]["deletionTimestamp"]
    assert (await api.delete(f"{CMS}/a")).code == 200
    more = await api.patch(f"{CMS}/a", {"metadata": {"finalizers": ["example.com/wait", "example.com/more"]}})
    assert more.code == 422
    assert (await api.patch(f"{CMS}/a", {"metadata": {"deletionTimestamp": None}}))["metadata"]["deletionTimestamp"]
    gone = await api.patch(f"{CMS}/a", {"metadata": {"finalizers": None}})
    assert gone.code == 200
    assert (await api.get(f"{CMS}/a")).code == 404


async def test_propagation_becomes_a_finalizer(api: Api) -> None:
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        await api.post(CMS, config_map("a"))
        marked = await api.delete(f"{CMS}/a?propagationPolicy={policy}")
        assert marked["metadata"]["finalizers"] == [finalizer]
        await api.patch(f"{CMS}/a", {"metadata": {"finalizers": []}})
        assert (await api.get(f"{CMS}/a")).code == 404
    await api.post(CMS, config_map("a"))
    assert (await api.delete(f"{CMS}/a", {"propagationPolicy": "Background"}))["status"] == "Success"
    assert (await api.delete(f"{CMS}/a", {"propagationPolicy": "Sometimes"})).code == 400


async def test_preconditions(api: Api) -> None:
    made = (await api.post(CMS, config_map("a"))).body
    wrong = await api.delete(f"{CMS}/a", {"preconditions": {"uid": "x"}})
    assert (wrong.code, wrong.reason) == (409, "Conflict")
    right = {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}
    assert (await api.delete(f"{CMS}/a", {"preconditions": right})).code == 200


async def test_pods_end_gracefully(api: Api) -> None:
    await api.post(PODS, pod("free"))
    assert (await api.delete(f"{PODS}/free")).code == 200
    assert (await api.get(f"{PODS}/free")).code == 404
    await api.post(PODS, pod("bound", nodeName="n1"))
    marked = await api.delete(f"{PODS}/bound")
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert marked["metadata"]["deletionTimestamp"] == "2023-11-14T22:13:50Z"
    shorter = await api.delete(f"{PODS}/bound", {"gracePeriodSeconds": 5})
    assert shorter["metadata"]["deletionGracePeriodSeconds"] == 5
    assert (await api.delete(f"{PODS}/bound", {"gracePeriodSeconds": 60}))["metadata"][
        "deletionGracePeriodSeconds"
    ] == 5
    assert (await api.delete(f"{PODS}/bound", {"gracePeriodSeconds": 0})).code == 200
    assert (await api.get(f"{PODS}/bound")).code == 404


async def test_deletecollection_by_label(api: Api) -> None:
    for name in "abc":
        await api.post(CMS, config_map(name, metadata={"labels": {"l": name}}))
    gone = await api.delete(f"{CMS}?labelSelector=l in (a,b)")
    assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "b"]
    assert [item["metadata"]["name"] for item in (await api.get(CMS))["items"]] == ["c"]


async def test_selectors(api: Api) -> None:
    for name in "abc":
        await api.post(CMS, config_map(name, metadata={"labels": {"l": name, "all": "yes"}}))

    async def names(query: str) -> list[str]:
        answer = await api.get(f"{CMS}?{query}")
        assert answer.code == 200, answer.body
        return [item["metadata"]["name"] for item in answer["items"]]

    assert await names("labelSelector=l%3Da".replace("%3D", "=")) == ["a"]
    assert await names("labelSelector=l!=a,all") == ["b", "c"]
    assert await names("labelSelector=l notin (a, b)") == ["c"]
    assert await names("labelSelector=!l") == []
    assert await names("fieldSelector=metadata.name=b") == ["b"]
    assert await names("fieldSelector=metadata.name!=b,metadata.namespace=default") == ["a", "c"]
    assert (await api.get(f"{CMS}?labelSelector=a in (")).code == 400
    unknown = await api.get(f"{CMS}?fieldSelector=data.x=b")
    assert unknown.code == 400
    assert "data.x" in unknown.message


async def test_pages_skip_and_repeat_nothing(api: Api) -> None:
    for index in range(7):
        await api.post(CMS, config_map(f"c{index}"))
    first = await api.get(f"{CMS}?limit=3")
    assert first["metadata"]["remainingItemCount"] == 4
    await api.delete(f"{CMS}/c1")
    await api.post(CMS, config_map("c00"))
    await api.delete(f"{CMS}/c4")
    second = await api.get(f"{CMS}?limit=3&continue={first['metadata']['continue']}")
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in second["metadata"]
    assert [item["metadata"]["name"] for item in first["items"]] == ["c0", "c1", "c2"]
    assert [item["metadata"]["name"] for item in second["items"]] == ["c3", "c5", "c6"]
    nonsense = await api.get(f"{CMS}?limit=3&continue=xyz")
    assert (nonsense.code, nonsense.reason) == (410, "Expired")


async def test_lists_not_older_than(api: Api) -> None:
    version = (await api.post(CMS, config_map("a")))["metadata"]["resourceVersion"]
    assert len((await api.get(f"{CMS}?resourceVersion={version}&resourceVersionMatch=NotOlderThan"))["items"]) == 1
    assert len((await api.get(f"{CMS}?resourceVersion={version}&resourceVersionMatch=Exact"))["items"]) == 1
    assert (await api.get(f"{CMS}?resourceVersion=1&resourceVersionMatch=Exact")).code == 410
    assert (await api.get(f"{CMS}?resourceVersionMatch=Exact")).code == 400
    assert (await api.get(f"{CMS}?resourceVersion=abc")).code == 400
