"""CertificateSigningRequest: how a joining node gets its certificate from the cluster's CA."""

from __future__ import annotations

from minik8s.api.meta import Condition, Object, Struct
from minik8s.api.resource import Resource


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


RESOURCE = Resource(
    kind="CertificateSigningRequest",
    plural="certificatesigningrequests",
    group="certificates.k8s.io",
    type=CertificateSigningRequest,
    definition="io.k8s.api.certificates.v1.CertificateSigningRequest",
    shortNames=("csr",),
    namespaced=False,
    subresources=frozenset(("status", "approval")),
)
