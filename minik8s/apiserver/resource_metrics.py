"""metrics.k8s.io: what nodes and pods use now, asked of their kubelets when somebody reads it.

Nothing is kept beyond a second and nothing runs while nobody asks: the kubelets have the samples. Each node is asked
once for all who want to know at that moment; a node that does not answer is left out, and left alone for a while.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple

import msgspec

from minik8s.api import fields, labels
from minik8s.api.errors import ServiceUnavailable, StatusError, not_found
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.meta import ObjectMeta, Struct
from minik8s.apiserver import served
from minik8s.apiserver.request import ApiResponse, json_response
from minik8s.apiserver.streaming import kubelet_address
from minik8s.apiserver.verbs import Call
from minik8s.client.informer import Informers
from minik8s.clock import rfc3339
from minik8s.log import get_logger

if TYPE_CHECKING:
    import aiohttp

FRESH: Final = 1.0  # seconds for which an answer is given again
SILENT: Final = 5.0  # seconds for which a node that did not answer is not asked again
PATIENCE: Final = 2.0  # seconds for a node to answer
AT_ONCE: Final = 32  # nodes asked at the same time
LONGEST_STDERR: Final = 4096  # bytes that are kept of what a command says
LONGEST: Final = 16 << 20  # bytes of an answer; a hundred pods take some 100 KiB
PATH: Final = "/stats/summary"

Json = dict[str, Any]
Fetch = Callable[[Node], Awaitable[bytes]]
log = get_logger("metrics")


# -- what a kubelet says: it may be anybody's machine, so what cannot be is refused here

Natural = Annotated[int, msgspec.Meta(ge=0)]
_NEVER: Final = datetime.fromtimestamp(0, UTC)


class Cpu(Struct):
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    usageNanoCores: Natural | None = None
    usageWindowSeconds: float = 10.0


class Memory(Struct):
    workingSetBytes: Natural | None = None


class Usage(Struct):
    name: str = ""
    cpu: Cpu = Cpu(time=_NEVER)
    memory: Memory = Memory()


class PodUsage(Struct):
    class Reference(Struct):
        name: str = ""
        namespace: str = ""
        uid: str = ""

    podRef: Reference = Reference()
    containers: tuple[Usage, ...] = ()


class Summary(Struct):
    """Of the kubelet's statsapi Summary, what is needed here."""

    node: Usage = Usage()
    pods: tuple[PodUsage, ...] = ()


_read_summary = msgspec.json.Decoder(Summary)


# -- what is answered: pure


def node_metrics(node: Node, usage: Usage) -> Json | None:
    """None while the node has not measured for long enough."""
    used = _used(usage)
    if used is None:
        return None
    return {"metadata": _meta(node.metadata), **_when([usage]), "usage": used}


def pod_metrics(pod: Pod, usage: PodUsage) -> Json | None:
    """None until each of its containers has been measured: half a pod's usage would mislead whoever scales by it."""
    containers = [{"name": each.name, "usage": _used(each)} for each in usage.containers]
    if not containers or any(each["usage"] is None for each in containers):
        return None
    return {"metadata": _meta(pod.metadata), **_when(usage.containers), "containers": containers}


def _used(usage: Usage) -> Json | None:
    cpu, memory = usage.cpu.usageNanoCores, usage.memory.workingSetBytes
    return None if cpu is None or memory is None else {"cpu": f"{cpu}n", "memory": f"{memory // 1024}Ki"}


def _when(usages: Iterable[Usage]) -> Json:
    """The latest time, and the longest window that ends there, as a Go duration."""
    times, windows = zip(*((each.cpu.time, each.cpu.usageWindowSeconds) for each in usages), strict=True)
    return {"timestamp": rfc3339(max(times).timestamp()), "window": f"{max(windows):.3f}s"}


def _meta(meta: ObjectMeta) -> Json:
    found: Json = {"name": meta.name, "creationTimestamp": rfc3339(time.time())}
    if meta.namespace:
        found["namespace"] = meta.namespace
    if meta.labels:
        found["labels"] = dict(meta.labels)
    return found


# -- asking


class Kubelets:
    """Fetches from nodes' kubelets over connections that are kept; `run` is eternal and owns them.

    `context` is TLS as the kubelets' client. `here`: nodes of this very process that no network leads to, and what
    answers for them.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self.here: dict[str, Callable[[], Awaitable[tuple[str, bytes]]]] = {}
        self.context = context
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        await asyncio.to_thread(__import__, "aiohttp")  # a fifth of what a start reads, and nobody has asked yet
        import aiohttp

        connector = aiohttp.TCPConnector(limit=0, ssl=self.context, keepalive_timeout=30)
        async with aiohttp.ClientSession(connector=connector) as self._session:
            await asyncio.Event().wait()

    async def summary(self, node: Node) -> bytes:
        """ServiceUnavailable if it does not give one."""
        if node.metadata.name in self.here:
            return (await self.here[node.metadata.name]())[1]
        return await self.page(node, PATH)

    async def page(self, node: Node, path: str) -> bytes:
        """A page of its kubelet; `path` with the query. ServiceUnavailable if it does not give it."""
        if self._session is None:
            raise ServiceUnavailable("the API server is starting")
        import aiohttp

        address, port = kubelet_address(node)
        host = f"[{address}]" if ":" in address else address
        try:
            async with self._session.get(f"https://{host}:{port}{path}", allow_redirects=False) as answer:
                if answer.status != 200:
                    raise ServiceUnavailable(f"the kubelet answers {answer.status}")
                body = bytearray()
                async for piece in answer.content.iter_any():
                    body += piece
                    if len(body) > LONGEST:
                        raise ServiceUnavailable(f"the kubelet's answer is longer than {LONGEST} bytes")
                return bytes(body)
        except (aiohttp.ClientError, OSError) as error:
            raise ServiceUnavailable(str(error)) from None

    async def exec(
        self, node: Node, path: str, stdin: AsyncIterator[bytes], stdout: Callable[[bytes], object]
    ) -> tuple[int, str]:
        """Run a command in a container: `path` is the kubelet's, with all that it asks for. Exit code and stderr.

        ServiceUnavailable if it could not be run, or nobody knows how it ended.
        """
        if self._session is None or node.metadata.name in self.here:
            raise ServiceUnavailable(f'nothing can be run on the node "{node.metadata.name}"')
        import aiohttp

        address, port = kubelet_address(node)
        url = f"https://{f'[{address}]' if ':' in address else address}:{port}{path}"
        try:
            async with self._session.ws_connect(
                url, protocols=("v5.channel.k8s.io",), heartbeat=20.0, max_msg_size=LONGEST
            ) as socket:
                return await _converse(socket, stdin, stdout)
        except (aiohttp.ClientError, OSError) as error:
            raise ServiceUnavailable(f"the kubelet did not run it: {error}") from None


async def _converse(
    socket: aiohttp.ClientWebSocketResponse, stdin: AsyncIterator[bytes], stdout: Callable[[bytes], object]
) -> tuple[int, str]:
    """Channels of v5: a byte that names one, then its bytes; 255 and a number end one."""

    async def feed() -> None:
        async for block in stdin:
            await socket.send_bytes(b"\0" + block)
        await socket.send_bytes(b"\xff\0")

    said, status = bytearray(), None
    feeding = asyncio.ensure_future(feed())
    try:
        async for message in socket:
            data = message.data
            if not isinstance(data, bytes) or not data:
                continue
            if data[0] == 1:
                stdout(data[1:])
            elif data[0] == 2 and len(said) < LONGEST_STDERR:
                said += data[1:]
            elif data[0] == 3:
                status = msgspec.json.decode(data[1:])
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
    if not isinstance(status, dict):
        raise ServiceUnavailable("the kubelet did not tell how the command ended")
    return _exit_code(status), said.decode(errors="replace")


def _exit_code(status: Json) -> int:
    """Of the Status that ends an exec: 0, or the cause ExitCode. ServiceUnavailable if it did not run at all."""
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdigit():
            return int(cause["message"])
    raise ServiceUnavailable(str(status.get("message") or "the command did not run"))


class _Asked(NamedTuple):
    at: float
    answer: Summary | None


class Summaries:
    """What nodes said in the last second; one question at a time to each of them."""

    def __init__(self, fetch: Fetch, *, tick: Callable[[], float] = time.monotonic, patience: float = PATIENCE) -> None:
        self._fetch = fetch
        self._tick = tick
        self._patience = patience
        self._asked: dict[str, _Asked] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def of(self, nodes: Iterable[Node]) -> dict[str, Summary]:
        """By node name; those that say nothing are missing."""
        wanted = {node.metadata.name: node for node in nodes}
        async with asyncio.TaskGroup() as tasks:
            found = {name: tasks.create_task(self._one(name, node)) for name, node in wanted.items()}
        return {name: answer for name, task in found.items() if (answer := task.result()) is not None}

    def forget(self, names: Iterable[str]) -> None:
        """These nodes are gone."""
        for name in names:
            self._asked.pop(name, None)
            self._locks.pop(name, None)

    async def _one(self, name: str, node: Node) -> Summary | None:
        async with self._locks.setdefault(name, asyncio.Lock()):
            known = self._asked.get(name)
            if known is not None and self._tick() - known.at < (SILENT if known.answer is None else FRESH):
                return known.answer
            async with self._turns:
                answer = await self._ask(name, node)
            self._asked[name] = _Asked(self._tick(), answer)
            return answer

    async def _ask(self, name: str, node: Node) -> Summary | None:
        try:
            async with asyncio.timeout(self._patience):
                return _read_summary.decode(await self._fetch(node))
        except (StatusError, TimeoutError, msgspec.DecodeError) as error:
            log.debug("a node gives no figures", node=name, error=str(error) or type(error).__name__)
            return None


# -- serving


class ResourceMetrics:
    """Answers get and list of NodeMetrics and PodMetrics out of `informers`' nodes and pods, and `fetch`."""

    def __init__(self, informers: Informers, fetch: Fetch) -> None:
        self._nodes = informers.of(Node)
        self._pods = informers.of(Pod)
        self._summaries = Summaries(fetch)
        self._nodes.on_change(self._node_changed)

    def answers(self) -> Mapping[tuple[str, str, str], Callable[[Call], Awaitable[ApiResponse]]]:
        """What the handler dispatches to by (group, version, plural)."""
        table = {served.NODE_METRICS: self.nodes, served.POD_METRICS: self.pods}
        return {(kind.group, kind.version, kind.plural): answer for kind, answer in table.items()}

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if new is None and old is not None:
            self._summaries.forget([old.metadata.name])

    async def nodes(self, call: Call) -> ApiResponse:
        chosen = _chosen(self._nodes.list(), call)
        said = await self._summaries.of(chosen)
        found = [node_metrics(node, said[node.metadata.name].node) for node in chosen if node.metadata.name in said]
        return _answer(call, served.NODE_METRICS, found)

    async def pods(self, call: Call) -> ApiResponse:
        chosen = [pod for pod in _chosen(self._pods.list(call.info.namespace or None), call) if pod.spec.nodeName]
        hosts = (self._nodes.get("", name) for name in {pod.spec.nodeName for pod in chosen})
        said = await self._summaries.of(node for node in hosts if node is not None)
        # By node as well: none may speak for another's pods.
        usages = {(node, each.podRef.uid): each for node, summary in said.items() for each in summary.pods}
        places = ((pod, (pod.spec.nodeName, pod.metadata.uid)) for pod in chosen)
        found = [pod_metrics(pod, usages[place]) for pod, place in places if place in usages]
        return _answer(call, served.POD_METRICS, found)


def _chosen(objects: Iterable[Any], call: Call) -> list[Any]:
    """Those that name and selectors leave; only metadata can be selected by. BadRequest for a wrong selector."""
    query, name = call.request.query, call.info.name
    wanted = labels.parse(query.get("labelSelector", ""))
    terms = fields.parse(query.get("fieldSelector", ""))
    return [
        each
        for each in objects
        if name in ("", each.metadata.name)
        and labels.matches(wanted, each.metadata.labels)
        and all(_holds(term, each.metadata) for term in terms)
    ]


def _holds(term: fields.Term, meta: ObjectMeta) -> bool:
    known = {"metadata.name": meta.name, "metadata.namespace": meta.namespace}
    return (known.get(term.field) == term.value) == term.equal


def _answer(call: Call, kind: served.Virtual, found: Iterable[Json | None]) -> ApiResponse:
    items = [{"kind": kind.kind, "apiVersion": kind.api_version, **each} for each in found if each is not None]
    if call.info.name:
        if not items:
            raise not_found(kind.plural, call.info.name, group=kind.group)
        return json_response(items[0])
    meta: Json = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": {}}
    return json_response({**meta, "items": items})
