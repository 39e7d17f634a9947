"""Lease: a heartbeat with a holder; nodes prove life with it and leaders their office."""

from __future__ import annotations

from minik8s.api.kinds.columns import AGE, NAME, dig
from minik8s.api.meta import Object, Struct
from minik8s.api.resource import Column, Resource

NODE_LEASES = "kube-node-lease"  # the namespace of nodes' heartbeats
# Of that namespace: how often, in seconds, the master wants heartbeats. It is where every node may read it.
INTERVAL_ANNOTATION = "minik8s.io/node-lease-interval"


class LeaseSpec(Struct):
    holderIdentity: str = ""
    leaseDurationSeconds: int = 0
    acquireTime: str = ""
    renewTime: str = ""
    leaseTransitions: int = 0


class Lease(Object):
    spec: LeaseSpec = LeaseSpec()


RESOURCE = Resource(
    kind="Lease",
    plural="leases",
    group="coordination.k8s.io",
    type=Lease,
    definition="io.k8s.api.coordination.v1.Lease",
    spec_generation=False,
    columns=(
        NAME,
        Column("Holder", lambda lease, now: dig(lease, "spec.holderIdentity", ""), description="Who holds it."),
        AGE,
    ),
)
