"""Functions on a whole cluster in memory; the test is the gateway: it gives verdicts, and tells what is in flight."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from minik8s.api.errors import BadRequest, Conflict, Forbidden, Invalid, NotFound
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.environment import POOL_LABEL, Environment
from minik8s.api.kinds.function import LABEL, RESOURCE, Function
from minik8s.api.kinds.functionrevision import SHAPE_LABEL, FunctionRevision
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.meta import condition
from minik8s.apiserver.auth import AUTHENTICATED, NODES, User
from minik8s.archives import pack_files
from minik8s.testing import Cluster, cluster
from tests.patience import patience

Json = dict[str, Any]
BASE = RESOURCE.base_path("default")
REVISIONS = BASE.replace("functions", "functionrevisions")
DEMANDS = "/apis/faas.minik8s.io/v1/functiondemands"
CODE = "def main(params):\n    return params\n"
NODE = User("system:node:node", (NODES, AUTHENTICATED))


@pytest_asyncio.fixture
async def it() -> AsyncIterator[Cluster]:
    async with cluster(nodes=1, function_pool=0) as made:
        yield made


@pytest_asyncio.fixture
async def pooled() -> AsyncIterator[Cluster]:
    async with cluster(nodes=1, function_pool=1) as made:
        yield made


async def make(it: Cluster, name: str = "f", **spec: Any) -> Function:
    body = {"metadata": {"name": name}, "spec": {"code": {"inline": CODE}, **spec}}
    return await it.client.create(Function, body, "default")


async def change(it: Cluster, name: str = "f", **spec: Any) -> Function:
    return await it.client.patch(Function, name, "default", {"spec": spec})


async def revision(it: Cluster, name: str = "f-00001") -> FunctionRevision:
    return await it.until(FunctionRevision, lambda each: each.metadata.name == name)


async def verdict(it: Cluster, name: str = "f-00001", message: str = "") -> FunctionRevision:
    """What a gateway writes when a pod has loaded the revision, or has not."""
    await revision(it, name)
    good = {"type": "Ready", "status": "True", "reason": "Loaded", "message": ""}
    bad = {"type": "Ready", "status": "False", "reason": "LoadError", "message": message}
    status = {"status": {"contract": "main", "conditions": [bad if message else good]}}
    return await it.master.client(NODE).patch(FunctionRevision, name, "default", status, subresource="status")


async def function(it: Cluster, test: Any, name: str = "f", seconds: float = 10) -> Function:
    return await it.until(Function, lambda each: each.metadata.name == name and test(each), seconds=patience(seconds))


def state(each: Function) -> tuple[str, str]:
    found = condition(each.status.conditions, "Ready")
    return (found.status, found.reason) if found else ("", "")


def split(each: Function) -> dict[str, int]:
    return {share.revision: share.percent for share in each.status.traffic}


async def called(it: Cluster, load: float, *, waiting: int = 0, name: str = "f", rev: str = "f-00001") -> list[Json]:
    """What a gateway tells; the pods that its calls may go to at once."""
    shape = (await it.client.get(FunctionRevision, rev, "default")).spec.shape
    told = {"shape": shape, "concurrency": load, "waiting": waiting, "requests": 1 if load else 0}
    answer = await post(it, DEMANDS, {"gateway": "node", "functions": {f"default/{name}": [told]}})
    promises: list[Json] = answer["promises"]
    return promises


async def post(it: Cluster, path: str, body: Json) -> Json:
    transport = it.master.client(NODE).transport
    answer: Json = msgspec.json.decode(await transport.request("POST", path, body=msgspec.json.encode(body)))
    return answer


async def read(it: Cluster, path: str, **query: str) -> bytes:
    return await it.client.transport.request("GET", path, query=query)


async def mine(it: Cluster, name: str = "f") -> list[Pod]:
    found = (await it.client.list(Pod, "default", labels=f"{LABEL}={name}")).items
    return [pod for pod in found if not pod.deleting]


async def none_left(it: Cluster, kind: type[Any], test: Any) -> None:
    """Return when no object is left for which `test` holds."""
    informer, empty = it.informers.of(kind), asyncio.Event()

    def look(old: Any, new: Any) -> None:
        if not any(test(each) for each in informer.list()):
            empty.set()

    informer.on_change(look)
    look(None, None)
    async with asyncio.timeout(10):
        await empty.wait()


def alive(pod: Pod, name: str = "f") -> bool:
    return pod.metadata.labels.get(LABEL) == name and not pod.deleting and pod.status.phase == "Running"


# -- revisions


async def test_a_function_is_tried_in_a_pod_and_then_called(it: Cluster) -> None:
    made = await make(it)
    first = await revision(it)
    assert first.spec.function == "f"
    assert first.controller is not None
    assert first.controller.uid == made.metadata.uid
    pod = await it.until(Pod, alive)
    assert pod.metadata.labels == {LABEL: "f", SHAPE_LABEL: first.spec.shape}
    waiting = await function(it, lambda each: state(each)[1] == "Loading")
    assert waiting.status.traffic == ()
    assert waiting.status.latestRevision == "f-00001"
    assert waiting.status.url == "/function/default/f"
    await verdict(it)
    ready = await function(it, lambda each: state(each) == ("True", "Loaded"))
    assert split(ready) == {"f-00001": 100}
    assert ready.status.readyRevision == "f-00001"


async def test_the_archive_of_a_revision_is_what_was_written_down(it: Cluster) -> None:
    await make(it)
    first = await revision(it)
    packed = await read(it, f"{REVISIONS}/f-00001/code")
    assert hashlib.sha256(packed).hexdigest() == first.spec.code.sha256
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as tar:
        file = tar.extractfile("func.py")
        assert file is not None
        assert file.read().decode() == CODE


async def test_what_would_run_makes_a_revision_and_nothing_else_does(it: Cluster) -> None:
    await make(it)
    await verdict(it)
    await function(it, lambda each: each.status.readyRevision == "f-00001")
    await change(it, scale={"maxReplicas": 3})
    await change(it, env=[{"name": "A", "value": "1"}])
    second = await revision(it, "f-00002")
    first = await revision(it, "f-00001")
    assert second.spec.number == 2
    assert second.spec.shape == first.spec.shape, "loaded in place"
    await change(it, resources={"limits": {"memory": "1Gi"}})
    third = await revision(it, "f-00003")
    assert third.spec.shape != first.spec.shape


async def test_code_that_cannot_be_loaded_leaves_the_old_revision_live(it: Cluster) -> None:
    await make(it)
    await verdict(it)
    await function(it, lambda each: state(each)[0] == "True")
    await change(it, code={"inline": "def main(:"})
    await verdict(it, "f-00002", "SyntaxError: invalid syntax")
    bad = await function(it, lambda each: state(each) == ("False", "LoadError"))
    assert split(bad) == {"f-00001": 100}
    told = condition(bad.status.conditions, "Ready")
    assert told is not None
    assert told.message == "f-00002: SyntaxError: invalid syntax"
    await change(it, code={"inline": CODE})
    await verdict(it, "f-00003")
    assert split(await function(it, lambda each: state(each)[0] == "True")) == {"f-00003": 100}


async def test_traffic_goes_as_wanted_to_what_is_ready(it: Cluster) -> None:
    await make(it)
    await verdict(it)
    await change(it, timeoutSeconds=31)
    await verdict(it, "f-00002")
    await function(it, lambda each: split(each) == {"f-00002": 100})
    await change(it, traffic=[{"revision": "f-00001", "percent": 75}, {"revision": "f-00002", "percent": 25}])
    await function(it, lambda each: split(each) == {"f-00001": 75, "f-00002": 25})
    await change(it, traffic=[{"revision": "f-00001", "percent": 100}])  # back
    await function(it, lambda each: split(each) == {"f-00001": 100})
    with pytest.raises(Invalid, match="100 percent together"):
        await change(it, traffic=[{"revision": "f-00001", "percent": 60}])


async def test_old_revisions_are_forgotten_but_those_that_are_called(it: Cluster) -> None:
    await make(it, revisionHistoryLimit=2)
    await verdict(it)
    await function(it, lambda each: state(each)[0] == "True")
    await change(it, traffic=[{"revision": "f-00001", "percent": 100}])
    for number in (2, 3, 4):
        await change(it, timeoutSeconds=30 + number)
        await verdict(it, f"f-0000{number}")
    await function(it, lambda each: each.status.readyRevision == "f-00004")
    await none_left(it, FunctionRevision, lambda each: each.metadata.name == "f-00002")
    names = sorted(each.metadata.name for each in it.informers.of(FunctionRevision).list())
    assert names == ["f-00001", "f-00003", "f-00004"]


async def test_a_function_takes_everything_with_it(it: Cluster) -> None:
    await make(it)
    await it.until(Pod, alive)
    await it.client.delete(Function, "f", "default")
    await none_left(it, FunctionRevision, lambda each: True)
    await none_left(it, Pod, lambda each: LABEL in each.metadata.labels)


# -- code


async def upload(it: Cluster, packed: bytes, *, name: str = "f", chunk: int = 100) -> Json:
    answer: Json = {}
    for at in range(0, len(packed), chunk):
        data = await it.client.transport.request(
            "PUT", f"{BASE}/{name}/code", query={"offset": str(at)}, body=packed[at : at + chunk]
        )
        answer = msgspec.json.decode(data)
    return answer


async def test_an_archive_is_sent_in_chunks(it: Cluster) -> None:
    packed = pack_files({"func.py": CODE.encode()})
    sha = hashlib.sha256(packed).hexdigest()
    await make(it, code={"sha256": sha, "size": len(packed)})
    waiting = await function(it, lambda each: state(each) == ("False", "Uploading"))
    told = condition(waiting.status.conditions, "Ready")
    assert told is not None
    assert f"0 of {len(packed)} bytes" in told.message
    with pytest.raises(Conflict, match="only 0 bytes are here"):
        await it.client.transport.request("PUT", f"{BASE}/f/code", query={"offset": "5"}, body=b"x")
    assert (await upload(it, packed))["received"] == len(packed)
    assert (await revision(it)).spec.code.sha256 == sha
    assert await read(it, f"{REVISIONS}/f-00001/code") == packed
    assert msgspec.json.decode(await read(it, f"{BASE}/f/code"))["received"] == len(packed)


async def test_an_archive_that_must_not_be_unpacked_is_refused(it: Cluster) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        info = tarfile.TarInfo("../../etc/passwd")
        tar.addfile(info, io.BytesIO(b""))
    packed = made.getvalue()
    await make(it, code={"sha256": hashlib.sha256(packed).hexdigest(), "size": len(packed)})
    with pytest.raises(BadRequest, match="outside"):
        await upload(it, packed, chunk=10_000)
    assert (await it.client.list(FunctionRevision, "default")).items == ()


async def test_code_of_a_config_map_follows_it(it: Cluster) -> None:
    await make(it, code={"configMap": {"name": "c"}})
    await function(it, lambda each: state(each) == ("False", "NoCode"))
    await it.client.create(ConfigMap, {"metadata": {"name": "c"}, "data": {"func.py": CODE}}, "default")
    first = await revision(it)
    await it.client.patch(ConfigMap, "c", "default", {"data": {"more.py": "x = 1"}})
    assert (await revision(it, "f-00002")).spec.code != first.spec.code


async def test_a_runtime_is_told_variables_with_their_secrets(it: Cluster) -> None:
    source = {"secretKeyRef": {"name": "s", "key": "k"}}
    await make(it, env=[{"name": "A", "value": "1"}, {"name": "B", "valueFrom": source}])
    await revision(it)
    path = f"{REVISIONS}/f-00001/settings"
    transport = it.master.client(NODE).transport
    with pytest.raises(Conflict, match='variable B: there is no Secret "s"'):
        await transport.request("GET", path)
    await it.client.create(Secret, {"metadata": {"name": "s"}, "stringData": {"k": "hush"}}, "default")
    told = msgspec.json.decode(await transport.request("GET", path))
    assert told["env"] == {"A": "1", "B": "hush"}
    assert told["tenant"] == "default/f"
    assert (told["revision"], told["function"], told["namespace"]) == ("f-00001", "f", "default")
    with pytest.raises(Forbidden):
        await it.master.client(User("jane", (AUTHENTICATED,))).transport.request("GET", path)


# -- pods


async def test_calls_bring_pods_and_silence_takes_them(it: Cluster) -> None:
    await make(it, scale={"idleSeconds": 1, "maxReplicas": 4})
    await verdict(it)
    await function(it, lambda each: each.status.desiredReplicas == 0 and each.status.reason == "no call for 1s")
    await called(it, 0.1, waiting=1)
    one = await function(it, lambda each: each.status.replicas == 1)
    assert one.status.desiredReplicas == 1
    await called(it, 90.0, waiting=80)
    many = await function(it, lambda each: each.status.replicas == 4)
    assert many.status.reason.startswith("maxReplicas is 4")
    assert len(await mine(it)) == 4
    await called(it, 0.0)
    await function(it, lambda each: each.status.desiredReplicas == 0, seconds=20)


async def test_the_least_number_of_pods_is_kept(it: Cluster) -> None:
    await make(it, scale={"minReplicas": 2, "idleSeconds": 1})
    await verdict(it)
    await function(it, lambda each: each.status.replicas == 2)
    gone = (await mine(it))[0]
    await it.client.delete(Pod, gone.metadata.name, "default", grace=0)
    await it.until(Pod, lambda pod: alive(pod) and pod.metadata.creationTimestamp >= gone.metadata.creationTimestamp)
    await function(it, lambda each: each.status.replicas == 2)
    await change(it, scale={"minReplicas": 0})
    await function(it, lambda each: each.status.desiredReplicas == 0)


async def test_an_idle_pod_is_claimed_and_the_pool_is_filled_again(pooled: Cluster) -> None:
    it = pooled
    await make(it, scale={"idleSeconds": 1})
    waiting = await it.until(Pod, lambda pod: POOL_LABEL in pod.metadata.labels and pod.status.phase == "Running")
    assert waiting.metadata.ownerReferences == ()
    await verdict(it)
    await function(it, lambda each: each.status.desiredReplicas == 0 and bool(each.status.traffic))
    await called(it, 0.1, waiting=1)
    taken = await it.until(Pod, lambda pod: pod.metadata.uid == waiting.metadata.uid and alive(pod))
    assert taken.controller is not None
    assert taken.controller.name == "f"
    assert POOL_LABEL not in taken.metadata.labels
    again = await it.until(
        Pod, lambda pod: POOL_LABEL in pod.metadata.labels and pod.metadata.uid != waiting.metadata.uid
    )
    await it.client.delete(Function, "f", "default")
    await none_left(it, Pod, lambda pod: bool(pod.metadata.labels.keys() & {LABEL, POOL_LABEL}))
    assert again.metadata.uid != taken.metadata.uid


async def idle_pod(it: Cluster) -> Pod:
    """In the pool, when there is a function at rest that could use it."""
    await make(it, scale={"idleSeconds": 1})
    await verdict(it)
    await function(it, lambda each: each.status.desiredReplicas == 0 and bool(each.status.traffic))
    return await it.until(Pod, lambda pod: POOL_LABEL in pod.metadata.labels and pod.status.phase == "Running")


async def test_held_calls_may_go_to_an_idle_pod_at_once_and_its_claim_follows(pooled: Cluster) -> None:
    it = pooled
    waiting = await idle_pod(it)
    promised = {
        "crowd": "default/f", "shape": waiting.metadata.labels[SHAPE_LABEL], "pod": waiting.key,
        "address": waiting.status.podIP, "node": "node",
    }  # fmt: skip
    assert await called(it, 0.1, waiting=1) == [promised]
    assert await called(it, 0.1, waiting=2) == [promised]  # whoever asks next is told the same
    await it.until(Pod, lambda pod: pod.metadata.uid == waiting.metadata.uid and alive(pod))
    assert await called(it, 0.1, waiting=3) == []
    assert len(await mine(it)) == 1


async def test_a_promised_pod_that_nobody_needs_after_all_goes_for_there_may_be_code_in_it(pooled: Cluster) -> None:
    it = pooled
    waiting = await idle_pod(it)
    await it.client.create(Function, {"metadata": {"name": "g"}, "spec": {"code": {"inline": CODE}}}, "default")
    (promised,) = await called(it, 0.1, waiting=1)
    await it.client.delete(Function, "f", "default")
    await none_left(it, Pod, lambda pod: pod.metadata.uid == waiting.metadata.uid)
    assert promised["pod"] == waiting.key


async def test_functions_that_share_pods_share_them(it: Cluster) -> None:
    for name in ("f", "g"):
        await make(it, name, isolation="Process", scale={"idleSeconds": 60})
        await verdict(it, f"{name}-00001")
    pod = await it.until(Pod, lambda each: alive(each, "Shared"))
    await function(it, lambda each: each.status.replicas == 1, "g")
    assert len(await mine(it, "Shared")) == 1
    assert pod.controller is None
    await change(it, "g", isolation="Pod")
    await it.until(Pod, lambda each: alive(each, "g"))


async def test_only_gateways_tell_of_demand_and_only_of_their_own(it: Cluster) -> None:
    await make(it)
    with pytest.raises(Forbidden, match="its own gateway"):
        await post(it, DEMANDS, {"gateway": "other", "functions": {}})
    with pytest.raises(BadRequest, match="concurrency: must be a number"):
        await post(it, DEMANDS, {"gateway": "node", "functions": {"default/f": {"shape": "s", "concurrency": -1}}})
    jane = it.master.client(User("jane", (AUTHENTICATED,))).transport
    with pytest.raises(Forbidden):
        await jane.request("POST", DEMANDS, body=b'{"gateway": "node", "functions": {}}')
    unknown = {"default/none": {"shape": "s", "concurrency": 1.0, "waiting": 1, "requests": 1}}
    assert (await post(it, DEMANDS, {"gateway": "node", "functions": unknown}))["promises"] == []


async def test_a_pod_knows_only_the_hash_of_its_token(it: Cluster) -> None:
    await make(it)
    pod = await it.until(Pod, alive)
    secret = await it.master.client(NODE).get(Secret, "function-runtime", "kube-system")
    env = {each.name: each.value for each in pod.spec.containers[0].env}
    from base64 import b64decode

    from minik8s.faas.functions.pods import token

    made = token(b64decode(secret.data["hmac"]), "default", pod.metadata.name)
    assert env["FUNCTION_TOKEN_SHA256"] == hashlib.sha256(made.encode()).hexdigest()
    assert made not in str(msgspec.to_builtins(pod))


# -- environments


async def test_a_function_waits_for_its_environment(it: Cluster) -> None:
    await make(it, environment="numeric")
    await function(it, lambda each: state(each) == ("False", "EnvironmentNotFound"))
    spec = {"requirements": "six==1.16.0  # a comment\n"}
    made = await it.client.create(Environment, {"metadata": {"name": "numeric"}, "spec": spec}, "default")
    assert made.spec.requirements == ["six==1.16.0"]
    await function(it, lambda each: state(each) == ("Unknown", "EnvironmentNotReady"))


async def test_where_functions_are_switched_off_nothing_is_done_for_them() -> None:
    async with cluster(nodes=0, functions=False) as it:
        assert it.master.functions is None
        assert it.master.calls is None
        await make(it)
        with pytest.raises(NotFound):
            await post(it, DEMANDS, {"gateway": "node", "functions": {}})
        assert (await it.client.list(FunctionRevision)).items == ()


async def test_new_code_takes_the_place_of_code_from_elsewhere(it: Cluster) -> None:
    """Who applies a manifest does not know of code that was sent since, and the other way round."""
    sent: Json = {"sha256": "0" * 64, "size": 10}
    await make(it, code=sent)
    for code in ({"inline": CODE}, sent, {"configMap": {"name": "c"}}, {"inline": CODE}):
        held = await it.client.patch(Function, "f", "default", {"spec": {"code": code}})
        given = {field: value for field, value in msgspec.to_builtins(held.spec.code).items() if value}
        assert given == code
    both = {"spec": {"code": sent | {"configMap": {"name": "d"}}}}
    with pytest.raises(Invalid, match="may not be set together"):
        await it.client.patch(Function, "f", "default", both)
    for wrong in ({"spec": {"code": "x"}}, {"spec": "x"}):
        with pytest.raises((BadRequest, Invalid)):
            await it.client.patch(Function, "f", "default", wrong)


# -- what is refused


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"code": {"inline": "x", "configMap": {"name": "c"}}}, "may not be set together with `configMap`"),
        ({"code": {"sha256": "x", "size": 1}}, "64 digits of hexadecimal"),
        ({"code": {"sha256": "0" * 64}}, "spec.code.size"),
        ({"handler": "a b"}, "write module:name"),
        ({"concurrency": 1001}, "spec.concurrency: Invalid value: 1001: must be between 1 and 1000"),
        ({"scale": {"minReplicas": 5, "maxReplicas": 2}}, r"must not be more than maxReplicas \(2\)"),
        ({"environment": "e", "requirements": "six"}, "spec.requirements"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}, "belong to a revision"),
        ({"traffic": [{"revision": "g-00001", "percent": 100}]}, "must be a revision of this function"),
        ({"async": {"onFailure": {"function": "a", "url": "http://b"}}}, "must name one of"),
        ({"concurrency": 0}, r"spec.concurrency: Invalid value: 0: must be between 1 and 1000"),
        ({"invokes": ["A_b"]}, "invokes"),
        ({"resources": {"limits": {"memory": "x"}}}, "memory"),
    ],
)
async def test_a_wrong_function_is_refused_with_the_field_and_the_remedy(it: Cluster, spec: Json, message: str) -> None:
    with pytest.raises(Invalid, match=message):
        await make(it, **spec)
    with pytest.raises(NotFound):
        await it.client.get(Function, "f", "default")
