"""CertificateSigningRequest: how a joining node gets its certificate from the cluster's CA."""

from __future__ import annotations

from minik8s.api.kinds.columns import AGE, NAME, NONE, dig, duration
from minik8s.api.meta import Condition, Object, Struct
from minik8s.api.resource import Column, Json, Resource


class CertificateSigningRequestSpec(Struct):
    request: str = ""  # base64 of a PEM PKCS#10 request
    signerName: str = ""
    expirationSeconds: int | None = None
    usages: tuple[str, ...] = ()
    username: str = ""
    groups: tuple[str, ...] = ()


class CertificateSigningRequestStatus(Struct):
    conditions: tuple[Condition, ...] = ()
    certificate: str = ""  # base64 of PEM


class CertificateSigningRequest(Object):
    spec: CertificateSigningRequestSpec = CertificateSigningRequestSpec()
    status: CertificateSigningRequestStatus = CertificateSigningRequestStatus()


def _condition(request: Json, now: float) -> str:
    types = [c.get("type", "") for c in dig(request, "status.conditions", ())]
    words = [t for t in ("Approved", "Denied", "Failed") if t in types] or ["Pending"]
    return ",".join([*words, *(["Issued"] if dig(request, "status.certificate") else [])])


def _lifetime(request: Json, now: float) -> str:
    seconds = dig(request, "spec.expirationSeconds")
    return duration(seconds) if seconds else NONE


RESOURCE = Resource(
    kind="CertificateSigningRequest",
    plural="certificatesigningrequests",
    group="certificates.k8s.io",
    type=CertificateSigningRequest,
    definition="io.k8s.api.certificates.v1.CertificateSigningRequest",
    shortNames=("csr",),
    namespaced=False,
    subresources=frozenset(("status", "approval")),
    columns=(
        NAME,
        AGE,
        Column("SignerName", lambda r, now: dig(r, "spec.signerName", NONE), description="Who shall sign."),
        Column("Requestor", lambda r, now: dig(r, "spec.username", ""), description="Who asks."),
        Column("RequestedDuration", _lifetime, description="For how long."),
        Column("Condition", _condition, description="Pending, Approved, Denied, Failed; Issued."),
    ),
    selectable={"spec.signerName": lambda r: str(dig(r, "spec.signerName", ""))},
)
