"""Ingresses become one configuration, tried by nginx before it goes live, and nginx on every node.

One key, `ALL`: each look compiles the whole (`ingress_routes`, `ingress_nginx`), tries it if it is new, publishes it if
nginx takes it, and tells everybody what became of theirs. Nothing is remembered that the API does not hold: a trial's
verdict is the end of its pod. docs/adr/0004 says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from minik8s.api.errors import AlreadyExists
from minik8s.api.kinds.configmap import ConfigMap
from minik8s.api.kinds.daemonset import DaemonSet
from minik8s.api.kinds.dns import DNS
from minik8s.api.kinds.endpointslice import SERVICE_NAME_LABEL, EndpointSlice
from minik8s.api.kinds.ingress import Ingress
from minik8s.api.kinds.ingressclass import IS_DEFAULT, IngressClass
from minik8s.api.kinds.namespace import Namespace
from minik8s.api.kinds.node import Node
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.secret import Secret
from minik8s.api.kinds.service import Service
from minik8s.api.meta import Json, Object
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.client.recorder import Recorder
from minik8s.clock import Clock, parse_time
from minik8s.controllers import ingress_objects as objects
from minik8s.controllers.ingress_certificates import Certificates, self_signed
from minik8s.controllers.ingress_nginx import Options, Rendered, render
from minik8s.controllers.ingress_objects import NAMESPACE, NGINX, Verdict
from minik8s.controllers.ingress_routes import CLASS, CONTROLLER, Cluster, Pair, Table, compile_routes, is_ours
from minik8s.controllers.ingress_telling import NOTHING, IngressTelling, Outcome
from minik8s.controllers.settings import Settings
from minik8s.controllers.status import only_status_changed

ALL = "all"
BATCH = 0.2  # seconds in which changes are gathered
TRIAL_PATIENCE = 30.0  # seconds; a trial that says nothing for so long is lost with its node, and made anew
BY_SERVICE = "service"
NO_TABLE = Table((), {}, {}, frozenset(), frozenset())


class IngressController(Controller):
    name = "ingress-controller"
    workers = 1

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, clock: Clock, settings: Settings
    ) -> None:
        super().__init__(client, informers)
        self._clock = clock
        self._settings = settings
        self._ingresses = informers.of(Ingress)
        self._classes = informers.of(IngressClass)
        self._dns = informers.of(DNS)
        self._services = informers.of(Service)
        self._slices = informers.of(EndpointSlice)
        self._certificates = Certificates(informers.of(Secret, fields="type=kubernetes.io/tls"))
        self._secrets = informers.of(Secret, namespace=NAMESPACE)
        self._config_maps = informers.of(ConfigMap, namespace=NAMESPACE)
        self._pods = informers.of(Pod)
        self._sets = informers.of(DaemonSet)
        self._nodes = informers.of(Node)
        self._table = NO_TABLE
        self._telling = IngressTelling(client, informers, recorder, clock, settings.ingress_ports)
        self._class_made = False
        self._slices.add_index(BY_SERVICE, _service_of)
        self._follow()

    # -- what to look at

    def _follow(self) -> None:
        for informer in (self._ingresses, self._classes, self._secrets, self._config_maps):
            informer.on_change(lambda old, new: self._look())
        self._dns.on_change(lambda old, new: None if only_status_changed(old, new) else self._look())
        self._services.on_change(self._service_changed)
        self._slices.on_change(self._slice_changed)
        self._certificates.secrets.on_change(self._certificate_changed)
        self._pods.on_change(self._pod_changed)
        self._sets.on_change(self._set_changed)
        self._nodes.on_change(self._node_changed)

    def _look(self) -> None:
        self.queue.add_after(ALL, BATCH)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        service = new or old
        if service is not None and service.key in self._table.services and (old and old.spec) != (new and new.spec):
            self._look()

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        """Only the numbers of named ports are read, of headless services."""
        if (old and old.ports) != (new and new.ports):
            for key in _service_of(new or old or EndpointSlice()):
                if key in self._table.services:
                    self._look()

    def _certificate_changed(self, old: Secret | None, new: Secret | None) -> None:
        secret = new or old
        if secret is not None and secret.key in self._table.secrets:
            self._look()

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is not None and pod.metadata.namespace == NAMESPACE:
            self._look()

    def _set_changed(self, old: DaemonSet | None, new: DaemonSet | None) -> None:
        daemons = new or old
        if daemons is not None and daemons.metadata.namespace == NAMESPACE and not only_status_changed(old, new):
            self._look()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if (old and old.status.addresses) != (new and new.status.addresses):
            self._look()

    # -- the look

    async def reconcile(self, key: str) -> float | None:
        await self._make_class()
        classes = {each.metadata.name: each for each in self._classes.list()}
        ours = [each for each in self._ingresses.list() if not each.deleting and is_ours(each, classes)]
        self._table = table = compile_routes(ours, self._cluster())
        if not ours:
            await self._remove()
            await self._telling.tell(NOTHING)
            return None
        files = await self._render(table)
        result = await self._publish(files)
        await self._telling.tell(self._outcome(ours, files, result))
        return TRIAL_PATIENCE if result.taken is None else None

    def _outcome(self, ours: Sequence[Ingress], rendered: Rendered, result: Verdict) -> Outcome:
        nodes = {node.metadata.name: node for node in self._nodes.list()}
        pods = [pod for pod in self._pods.list(NAMESPACE) if pod.metadata.labels.items() >= objects.LABELS.items()]
        troubles = tuple(sorted({words for pod in pods if (words := objects.hindrance(pod))}))
        live = objects.fragments_of(self._secrets.get(NAMESPACE, NGINX))
        found = objects.addresses(pods, nodes)
        return Outcome(ours, self._table.problems, rendered.fragments, live, result, found, troubles)

    def _cluster(self) -> Cluster:
        return Cluster(
            self._services.get,
            lambda space, name: self._slices.by_index(BY_SERVICE, f"{space}/{name}"),
            self._certificates.find,
            self._settings.cluster_domain,
        )

    async def _make_class(self) -> None:
        """The class of those who name none, made once: whoever deletes it or makes another the default is obeyed."""
        if self._class_made or self._classes.by_key(CLASS) is not None:
            self._class_made = True
            return
        taken = any(each.metadata.annotations.get(IS_DEFAULT) == "true" for each in self._classes.list())
        metadata = {"name": CLASS, "annotations": {} if taken else {IS_DEFAULT: "true"}}
        made = await self._create(IngressClass, {"metadata": metadata, "spec": {"controller": CONTROLLER}})
        self._class_made = True
        if made is not None:
            await self._classes.caught_up(made.metadata.resourceVersion)

    # -- trying and publishing

    async def _render(self, table: Table) -> Rendered:
        default = self._secrets.get(NAMESPACE, objects.DEFAULT_SECRET)
        pair = self._certificates.read(default) if default is not None else "absent"
        if isinstance(pair, str):
            pair = await self._make_default(default)
        config = self._config_maps.get(NAMESPACE, NGINX)
        extra = config.data.get("http", "") if config is not None else ""
        http, https = self._settings.ingress_ports
        return render(table, pair, Options(http, https, self._settings.dns_ip, extra))

    async def _make_default(self, held: Secret | None) -> Pair:
        """The certificate of hosts that have none of their own."""
        await self._create(Namespace, {"metadata": {"name": NAMESPACE}})
        pair = self_signed()
        body = objects.secret(objects.DEFAULT_SECRET, {"tls.crt": pair.certificate, "tls.key": pair.key})
        body |= {"type": "kubernetes.io/tls"}
        if held is not None:  # it is there and no good: data that cannot be read is nobody's
            await self.client.delete(Secret, objects.DEFAULT_SECRET, NAMESPACE, uid=held.metadata.uid)
        made = await self.client.create(Secret, body)
        await self._secrets.caught_up(made.metadata.resourceVersion)
        return pair

    async def _publish(self, rendered: Rendered) -> Verdict:
        """Make `rendered` live if nginx takes it; what is said of it so far."""
        live = self._secrets.get(NAMESPACE, NGINX)
        wanted = objects.secret(NGINX, rendered.files)
        result = Verdict(True)
        if live is None or live.data != wanted["data"]:
            large = objects.too_large(rendered.files)
            result = Verdict(False, large) if large else await self._try(rendered)
            if result.taken:
                live = await self._go_live(live, wanted)
        await self._sweep("" if result.taken else rendered.version)
        if live is not None:
            await self._make_daemons()
        return result

    async def _try(self, rendered: Rendered) -> Verdict:
        name = objects.trial_name(rendered.version)
        pod = self._pods.get(NAMESPACE, name)
        if pod is None:
            await self._create(Namespace, {"metadata": {"name": NAMESPACE}})
            labels = {objects.TRIAL_LABEL: rendered.version}
            await self._create(Secret, objects.secret(name, rendered.files, labels=labels))
            made = await self._create(Pod, objects.trial(rendered, self._settings.ingress_image))
            if made is not None:
                await self._pods.caught_up(made.metadata.resourceVersion)
            return Verdict(None)
        said = objects.verdict(pod)
        if said.taken is None and not pod.deleting and self._is_lost(pod, said.words):
            await self.client.delete(Pod, name, NAMESPACE, grace=0, uid=pod.metadata.uid)
        return said

    def _is_lost(self, pod: Pod, words: str) -> bool:
        """It ended without a word (an eviction), or has said nothing for long (its node is gone)."""
        age = self._clock() - parse_time(pod.metadata.creationTimestamp)
        return pod.status.phase in ("Failed", "Succeeded") or (age > TRIAL_PATIENCE and not words)

    async def _go_live(self, live: Secret | None, wanted: Json) -> Secret:
        if live is None:
            made = await self.client.create(Secret, wanted)
        else:
            gone = dict.fromkeys(live.data.keys() - wanted["data"].keys())
            patch = {"metadata": {"uid": live.metadata.uid}, "data": {**gone, **wanted["data"]}}
            made = await self.client.patch(Secret, NGINX, NAMESPACE, patch)
        await self._secrets.caught_up(made.metadata.resourceVersion)
        return made

    async def _make_daemons(self) -> None:
        wanted = objects.daemon_set(self._settings.ingress_image, objects.Ports(*self._settings.ingress_ports))
        held = self._sets.get(NAMESPACE, NGINX)
        if held is None:
            made = await self.client.create(DaemonSet, wanted)
        elif held.deleting or held.metadata.annotations.items() >= wanted["metadata"]["annotations"].items():
            return
        else:  # another image, other ports, or another version of us
            known = await self.client.raw(DaemonSet, NGINX, NAMESPACE)
            known["spec"]["template"] = wanted["spec"]["template"]
            annotations = known["metadata"].get("annotations") or {}
            known["metadata"]["annotations"] = annotations | wanted["metadata"]["annotations"]
            made = await self.client.update(DaemonSet, known)
        await self._sets.caught_up(made.metadata.resourceVersion)

    async def _sweep(self, version: str) -> None:
        """Delete all trials but that of `version`."""
        kinds: tuple[tuple[type[Object], Iterable[Object]], ...] = (
            (Pod, self._pods.list(NAMESPACE)), (Secret, self._secrets.list())
        )  # fmt: skip
        for kind, found in kinds:
            for each in found:
                trial = each.metadata.labels.get(objects.TRIAL_LABEL)
                if trial is not None and trial != version and not each.deleting:
                    await self.client.delete(kind, each.metadata.name, NAMESPACE, uid=each.metadata.uid)

    async def _remove(self) -> None:
        """Nobody wants anything of nginx any more."""
        await self._sweep("")
        for kind, informer in ((DaemonSet, self._sets), (Secret, self._secrets)):
            held: Object | None = informer.get(NAMESPACE, NGINX)
            if held is not None and not held.deleting:
                await self.client.delete(kind, NGINX, NAMESPACE, uid=held.metadata.uid, propagation="Background")

    async def _create(self, kind: type[Object], body: Json) -> Object | None:
        """None if it is there already."""
        try:
            return await self.client.create(kind, body)
        except AlreadyExists:
            return None


def _service_of(piece: EndpointSlice) -> tuple[str, ...]:
    name = piece.metadata.labels.get(SERVICE_NAME_LABEL)
    return (f"{piece.metadata.namespace}/{name}",) if name else ()
