"""The one tree of errors: each is a Kubernetes Status with an HTTP code and a reason.

Whatever goes wrong below (SQLite, Docker, netlink, a peer's HTTP answer) is translated into one of these where it
enters; the HTTP layer renders `to_status()`, clients rebuild the same class with `from_status()`.
Reasons and codes are those of k8s.io/apimachinery `metav1.StatusReason`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple


class Cause(NamedTuple):
    """One thing wrong with one field, e.g. `Cause("spec.replicas", "FieldValueInvalid", "Invalid value: -1: …")`.

    `message` is the text after `field: ` and begins with the kind of fault, as in Kubernetes' field errors.
    """

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


def required(field: str, detail: str = "") -> Cause:
    return Cause(field, "FieldValueRequired", f"Required value{': ' + detail if detail else ''}")


def invalid(field: str, value: object, detail: str) -> Cause:
    return Cause(field, "FieldValueInvalid", f"Invalid value: {_show(value)}: {detail}")


def not_supported(field: str, value: object, supported: Sequence[str]) -> Cause:
    names = ", ".join(f'"{name}"' for name in supported)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {_show(value)}: supported values: {names}")


def forbidden(field: str, detail: str) -> Cause:
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def duplicate(field: str, value: object) -> Cause:
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {_show(value)}")


def _show(value: object) -> str:
    if isinstance(value, str):
        return f'"{value if len(value) <= 256 else value[:253] + "..."}"'
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    return text if len(text) <= 256 else text[:253] + "..."


class StatusError(Exception):
    """A failed request, as clients see it. Subclasses fix `code` and `reason`."""

    code: ClassVar[int] = 500
    reason: ClassVar[str] = "InternalError"

    def __init__(self, message: str, *, details: Mapping[str, Any] | None = None, retry_after: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after = retry_after  # seconds; sent as the Retry-After header as well
        if retry_after:
            self.details["retryAfterSeconds"] = retry_after

    def to_status(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            status["details"] = self.details
        return status


class BadRequest(StatusError):
    code, reason = 400, "BadRequest"


class Unauthorized(StatusError):
    code, reason = 401, "Unauthorized"


class Forbidden(StatusError):
    code, reason = 403, "Forbidden"


class NotFound(StatusError):
    code, reason = 404, "NotFound"


class MethodNotAllowed(StatusError):
    code, reason = 405, "MethodNotAllowed"


class NotAcceptable(StatusError):
    code, reason = 406, "NotAcceptable"


class Timeout(StatusError):
    code, reason = 504, "Timeout"


class Conflict(StatusError):
    code, reason = 409, "Conflict"


class AlreadyExists(StatusError):
    code, reason = 409, "AlreadyExists"


class Gone(StatusError):
    """The asked-for revision is no longer held: list again."""

    code, reason = 410, "Expired"


class RequestEntityTooLarge(StatusError):
    code, reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaType(StatusError):
    code, reason = 415, "UnsupportedMediaType"


class Invalid(StatusError):
    """The object was understood but breaks rules; `causes` say which field and why."""

    code, reason = 422, "Invalid"

    def __init__(self, kind: str, name: str, causes: Sequence[Cause], *, group: str = "") -> None:
        self.causes = tuple(causes)
        listed = str(self.causes[0]) if len(self.causes) == 1 else "[" + ", ".join(map(str, self.causes)) + "]"
        qualified = f"{kind}.{group}" if group else kind
        details: dict[str, Any] = {"name": name, "kind": kind, "causes": [_cause(c) for c in self.causes]}
        if group:
            details["group"] = group
        super().__init__(f'{qualified} "{name}" is invalid: {listed}', details=details)


def _cause(cause: Cause) -> dict[str, str]:
    return {"reason": cause.reason, "message": cause.message, "field": cause.field}


class TooManyRequests(StatusError):
    code, reason = 429, "TooManyRequests"


class InternalError(StatusError):
    code, reason = 500, "InternalError"


class ServiceUnavailable(StatusError):
    """The server, its store or a node cannot be reached now; the same request may succeed later."""

    code, reason = 503, "ServiceUnavailable"


_BY_REASON: dict[str, type[StatusError]] = {
    cls.reason: cls
    for cls in (
        BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable, Timeout, Conflict,
        AlreadyExists, Gone, RequestEntityTooLarge, UnsupportedMediaType, TooManyRequests, InternalError,
        ServiceUnavailable,
    )
}  # fmt: skip
_BY_CODE: dict[int, type[StatusError]] = {cls.code: cls for cls in reversed(_BY_REASON.values())}


def from_status(status: Mapping[str, Any], *, code: int = 0) -> StatusError:
    """The error that a Status object (or a bare HTTP `code`) stands for; unknown reasons become `InternalError`."""
    message = str(status.get("message") or f"the server answered with HTTP status {code}")
    details = status.get("details") or {}
    if status.get("reason") == "Invalid":
        error = Invalid.__new__(Invalid)
        StatusError.__init__(error, message, details=details)
        error.causes = tuple(
            Cause(c.get("field", ""), c.get("reason", ""), c.get("message", "")) for c in details.get("causes", ())
        )
        return error
    cls = _BY_REASON.get(str(status.get("reason", ""))) or _BY_CODE.get(int(status.get("code") or code), InternalError)
    return cls(message, details=details, retry_after=int(details.get("retryAfterSeconds") or 0))


def not_found(plural: str, name: str, *, group: str = "") -> NotFound:
    qualified = f"{plural}.{group}" if group else plural
    details = {"name": name, "kind": plural} | ({"group": group} if group else {})
    return NotFound(f'{qualified} "{name}" not found', details=details)


def already_exists(plural: str, name: str, *, group: str = "") -> AlreadyExists:
    qualified = f"{plural}.{group}" if group else plural
    details = {"name": name, "kind": plural} | ({"group": group} if group else {})
    return AlreadyExists(f'{qualified} "{name}" already exists', details=details)
