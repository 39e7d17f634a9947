"""CertificateSigningRequest: how a joining node gets its certificate from the cluster's CA."""

from __future__ import annotations

import base64
import re

from minik8s.api.errors import Cause, forbidden, invalid, required
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


SHORTEST = 600  # seconds; validation of certificates.k8s.io/v1
SIGNER = re.compile(r"(?=.{1,571}$)[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9._:]*[A-Za-z0-9])?")


def _validate(request: Json, old: Json | None) -> list[Cause]:
    spec, causes = request.get("spec") or {}, []
    if b"-----BEGIN" not in base64.b64decode(spec.get("request", "")):
        causes.append(invalid("spec.request", "", "must be a PEM-encoded PKCS#10 request, in base64"))
    if not SIGNER.fullmatch(spec.get("signerName", "")):
        causes.append(invalid("spec.signerName", spec.get("signerName", ""), "must be a name DOMAIN/NAME"))
    if not spec.get("usages"):
        causes.append(required("spec.usages", "usages must be provided"))
    if spec.get("expirationSeconds", SHORTEST) < SHORTEST:
        detail = f"may not specify a duration less than {SHORTEST} seconds (10 minutes)"
        causes.append(invalid("spec.expirationSeconds", spec["expirationSeconds"], detail))
    if old is not None and old.get("spec") != spec:
        causes.append(forbidden("spec", "what is asked for may not change: make another request"))
    return causes


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
    validate=_validate,
    selectable={"spec.signerName": lambda r: str(dig(r, "spec.signerName", ""))},
)
