"""What the gateway itself answers when a call cannot be made, or has come to no end: Statuses, told as small JSON.

`{"error": REASON, "message": …}` and the header `Minik8s-Error: REASON`. WorkerLost and Timeout may have run; of all
others nothing has run.
"""

from __future__ import annotations

import msgspec

from minik8s.api.errors import (
    RequestEntityTooLarge,
    ServiceUnavailable,
    StatusError,
)
from minik8s.faas.gateway import wire
from minik8s.faas.gateway.wire import Asked


class WorkerLost(StatusError):
    code, reason = 502, "WorkerLost"


class LoadError(StatusError):
    """There is no revision whose code could be loaded."""

    code, reason = 503, "LoadError"


class InvokeError(StatusError):
    """A chain of Invokes that must not go on."""

    code, reason = 508, "InvokeError"


_REASONS: dict[type[StatusError], str] = {ServiceUnavailable: "Unavailable", RequestEntityTooLarge: "BodyTooLarge"}


def reason_of(error: StatusError) -> str:
    return _REASONS.get(type(error), error.reason)


def refusal(error: StatusError, asked: Asked | None = None, call: str = "") -> bytes:
    """The answer; without `asked` the last on its connection."""
    reason = reason_of(error)
    body = msgspec.json.encode({"error": reason, "message": error.message})
    more = [(b"Minik8s-Error", reason.encode())]
    if call:
        more.append((b"Minik8s-Call", call.encode()))
    if error.retry_after:
        more.append((b"Retry-After", b"%d" % error.retry_after))
    if error.code == 405:
        more.append((b"Allow", str(error.details.get("allow", "")).encode()))
    return wire.own_answer(error.code, body, asked, more=more)
