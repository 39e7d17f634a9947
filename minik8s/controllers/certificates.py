"""Certificates for nodes: requests that a node may make for itself are approved and signed at once; others wait.

A joining node (bootstrap token) or the node itself may get a client certificate as `system:node:NAME` and a serving
certificate for its kubelet. What people request otherwise is signed only when somebody has approved it, and never with
the rights of an administrator: those come from the CA's holder alone.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from typing import ClassVar, NamedTuple

from minik8s import pki
from minik8s.api.kinds.certificatesigningrequest import CertificateSigningRequest, CertificateSigningRequestSpec
from minik8s.api.kinds.node import KEY_ANNOTATION, Node
from minik8s.api.meta import is_true
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.clock import Clock, parse_time, rfc3339, system_clock

CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING_SIGNER = "kubernetes.io/kubelet-serving"
GENERAL_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
SIGNERS = (CLIENT_SIGNER, SERVING_SIGNER, GENERAL_CLIENT_SIGNER)  # ours; requests to others are not our business
KEEP = 3600.0  # seconds that a finished request is kept, as upstream's csrcleaner does for issued ones
KEEP_PENDING = 24 * 3600.0  # seconds that a request waits for somebody's word; csrcleaner's pendingExpiration
NODE_PREFIX, NODES, BOOTSTRAPPERS = "system:node:", "system:nodes", "system:bootstrappers"
MASTERS = "system:masters"


class Holder(NamedTuple):
    """Who has a node's name: the id of its agent's key, as it says itself ("" if none has registered)."""

    key_id: str
    ready: bool


class Verdict(NamedTuple):
    """`approve`: True, False (deny), or None: not ours to say."""

    approve: bool | None
    message: str


def judge(
    spec: CertificateSigningRequestSpec, request: pki.Request, holder: Holder | None, reserved: Collection[str] = ()
) -> Verdict:
    """May the requestor have this certificate without anybody's word?

    A node is its key: what bears another machine's key does not get its name, alive or not, until somebody has deleted
    the Node. (That machine may only be cut off, and run its pods: another of that name would run them, too.)
    `holder` is the node of that name, None if there is none. `reserved` are the API server's names and addresses in the
    cluster, for which no node may speak: it could pass for it.
    """
    if spec.signerName not in (CLIENT_SIGNER, SERVING_SIGNER):
        return Verdict(None, "")
    taken = [name for name in (*request.dns_names, *request.addresses) if name in reserved]
    if taken and spec.signerName == SERVING_SIGNER:
        return Verdict(False, f"{taken[0]} is the API server: choose another --node-name or --node-ip")
    if not request.common_name.startswith(NODE_PREFIX) or request.organizations != (NODES,):
        return Verdict(False, f"a node's certificate is for {NODE_PREFIX}NAME in the group {NODES}")
    itself = spec.username == request.common_name and NODES in spec.groups
    if not itself and BOOTSTRAPPERS not in spec.groups:
        return Verdict(None, "")
    name = request.common_name.removeprefix(NODE_PREFIX)
    if spec.signerName == SERVING_SIGNER:
        if itself:
            return Verdict(True, "the node renews its own certificate")
        return Verdict(False, "a joining node asks for this one with its own client certificate")
    if holder is not None and holder.key_id != request.key_id and (holder.key_id or holder.ready):
        state = "living" if holder.ready else "silent"
        return Verdict(
            False,
            f'a {state} node is already called "{name}": choose another --node-name, '
            f'or "kubectl delete node {name}" if that one is gone for good',
        )
    if itself:
        return Verdict(True, "the node renews its own certificate")
    return Verdict(True, "a joining node has shown a bootstrap token")


class CertificateController(Controller):
    """Approves, signs and later forgets certificate signing requests. Runs only in a master: it holds the CA's key."""

    name: ClassVar[str] = "certificates"
    workers: ClassVar[int] = 2

    def __init__(
        self,
        client: Client,
        informers: Informers,
        ca: pki.Pair,
        *,
        reserved: Collection[str] = (),
        duration: float = pki.LEAF_DAYS * pki.DAY,
        clock: Clock = system_clock,
    ) -> None:
        """`duration`: seconds that a certificate lives at most (--cluster-signing-duration)."""
        super().__init__(client, informers)
        self._ca = ca
        self._reserved = frozenset(reserved)
        self._duration = duration
        self._clock = clock
        self._requests = informers.of(CertificateSigningRequest)
        self._nodes = informers.of(Node)
        self._requests.on_change(lambda old, new: self.queue.add(new.key) if new else None)

    async def reconcile(self, key: str) -> float | None:
        request = self._requests.by_key(key)
        if request is None or request.deleting:
            return None
        conditions = request.status.conditions
        done = request.status.certificate or is_true(conditions, "Denied") or is_true(conditions, "Failed")
        age = self._clock() - parse_time(request.metadata.creationTimestamp)
        left = (KEEP if done else KEEP_PENDING) - age
        if left <= 0:
            await self.client.delete(CertificateSigningRequest, key, uid=request.metadata.uid)
            return None
        if not done and request.spec.signerName in SIGNERS:
            await self._answer(request)
        return left

    async def _answer(self, request: CertificateSigningRequest) -> None:
        """Approve, deny, sign, or leave it to people."""
        try:
            wanted = pki.read_request(base64.b64decode(request.spec.request))
            if is_true(request.status.conditions, "Approved"):
                await self._sign(request, wanted)
                return
        except ValueError as error:
            await self._conclude(request, "Failed", "InvalidRequest", str(error))
            return
        verdict = judge(request.spec, wanted, self._holder(wanted.common_name), self._reserved)
        if verdict.approve is not None:
            word, reason = ("Approved", "AutoApproved") if verdict.approve else ("Denied", "AutoDenied")
            await self._conclude(request, word, reason, verdict.message)

    def _holder(self, common_name: str) -> Holder | None:
        node = self._nodes.get(None, common_name.removeprefix(NODE_PREFIX))
        if node is None:
            return None
        return Holder(node.metadata.annotations.get(KEY_ANNOTATION, ""), is_true(node.status.conditions, "Ready"))

    async def _conclude(self, request: CertificateSigningRequest, type: str, reason: str, message: str) -> None:
        now = rfc3339(self._clock())
        condition = {"type": type, "status": "True", "reason": reason, "message": message, "lastUpdateTime": now}
        condition["lastTransitionTime"] = now
        held = await self.client.raw(self.client.resource(CertificateSigningRequest), request.metadata.name)
        held.setdefault("status", {}).setdefault("conditions", []).append(condition)
        subresource = "status" if type == "Failed" else "approval"
        await self.client.update(CertificateSigningRequest, held, subresource=subresource)

    async def _sign(self, request: CertificateSigningRequest, wanted: pki.Request) -> None:
        """Raises ValueError for what cannot be signed."""
        if MASTERS in wanted.organizations:
            raise ValueError(f"no certificate is signed for the group {MASTERS}")
        pair = pki.issue(
            self._ca,
            wanted.common_name,
            organizations=wanted.organizations,
            names=_names(request.spec.signerName, wanted),
            server=request.spec.signerName == SERVING_SIGNER,
            client=request.spec.signerName != SERVING_SIGNER,
            days=min(request.spec.expirationSeconds or self._duration, self._duration) / pki.DAY,
            public_key_of=base64.b64decode(request.spec.request),
        )
        status = {"status": {"certificate": pki.b64(pair.certificate)}}
        await self.client.patch(CertificateSigningRequest, request.metadata.name, None, status, subresource="status")


def _names(signer: str, wanted: pki.Request) -> Sequence[str]:
    return (*wanted.dns_names, *wanted.addresses) if signer == SERVING_SIGNER else ()
