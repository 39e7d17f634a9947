"""What an answer means for an asynchronous call: done, once more and when, or given up. Pure.

An answer below 400 is a success. 5xx, 408, 425 and 429 are tried again, as often as the function's `async.maxAttempts`
says; any other 4xx would be the same again. Where nothing was run (no gateway, no ready revision, too many calls) it
was no attempt: the whole line waits a little, until a call is older than `async.maxAgeSeconds`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from minik8s.clock import rfc3339_milli
from minik8s.faas.queue.queue import DEAD, SUCCEEDED, Again, Call, Ended, Record, Result

NOT_RUN = (404, 429, 503)  # with a reason, which only the gateway's own answers have
AGAIN = (408, 425, 429)
USER_ERROR = "FunctionError"
LONGEST_BACKOFF = 300.0  # seconds between two attempts, as with AWS Lambda
LONGEST_PAUSE = 30.0  # seconds between two looks whether a function can be called again
DEEPEST = 16  # calls that follow from one another by destinations: then it is a circle
TOO_OLD = "MaxAgeExceeded"


class Answer(NamedTuple):
    """`code` 0: there was none, and `cause` says why. `reason`: what Minik8s-Error says. `invoke`: the function that is
    to answer instead, with what is in the body."""

    code: int
    reason: str = ""
    content_type: str = ""
    body: bytes = b""
    cause: str = ""
    cut: bool = False
    invoke: str = ""

    @property
    def good(self) -> bool:
        return 0 < self.code < 400

    @property
    def not_run(self) -> bool:
        return self.code == 0 or (self.code in NOT_RUN and self.reason not in ("", USER_ERROR))


class Policy(NamedTuple):
    """How often, how long, and how far apart at first (seconds)."""

    attempts: int = 3
    age: float = 21_600.0
    backoff: float = 1.0


TOLD = Policy(attempts=6, age=3_600.0, backoff=2.0)  # of URLs that are told how a call has ended


def outcome(record: Record, answer: Answer, policy: Policy, now: float, chance: float) -> Again | Ended:
    """`chance` in [0, 1) draws the delay from the upper half of its step. An answer that was an attempt."""
    attempts = record.attempts + 1
    result = _result(answer)
    if answer.good:
        return Ended(SUCCEEDED, attempts, now, result)
    due = now + min(policy.backoff * 2.0 ** min(attempts - 1, 30), LONGEST_BACKOFF) * (0.5 + chance / 2)
    hopeless = 400 <= answer.code < 500 and answer.code not in AGAIN
    if hopeless or attempts >= policy.attempts or due > record.since + policy.age:
        return Ended(DEAD, attempts, now, result)
    return Again(attempts, due, result)


def pause(refusals: int, chance: float) -> float:
    """Seconds until a line that was refused so many times in a row (1 or more) is tried again."""
    return min(0.25 * 2.0 ** min(refusals - 1, 30), LONGEST_PAUSE) * (0.5 + chance / 2)


def too_old(record: Record, policy: Policy, now: float) -> Ended | None:
    if now <= record.since + policy.age:
        return None
    last = record.result or Result()
    why = f"it could not be made within {policy.age:g} s" + (f"; the last answer: {last.cause}" if last.cause else "")
    return Ended(DEAD, record.attempts, now, Result(last.code, error=TOO_OLD, cause=why))


def _result(answer: Answer) -> Result:
    body = b"" if answer.cut else answer.body  # half a document is none
    if answer.good:
        return Result(answer.code, answer.content_type, body, cut=answer.cut)
    error, cause = failure(answer)
    return Result(answer.code, answer.content_type, body, error, cause, answer.cut)


def failure(answer: Answer) -> tuple[str, str]:
    """(error, cause) of an answer that is none to be glad of: the exception's type and text, if it was one."""
    if answer.reason == USER_ERROR and isinstance(said := document(answer.body), dict):
        return str(said.get("error") or USER_ERROR), str(said.get("message") or "")
    text = answer.cause or answer.body[:1000].decode(errors="replace")
    return answer.reason or (f"StatusCode.{answer.code}" if answer.code else "Unreachable"), text


def document(body: bytes) -> Any:
    """The JSON value of a body; its text where it is none; nothing where there is nothing."""
    try:
        return msgspec.json.decode(body) if body else None
    except msgspec.DecodeError:
        return body.decode(errors="replace")


# -- what follows from an end


class Destination(NamedTuple):
    function: str = ""  # NAMESPACE/NAME
    url: str = ""


def followers(record: Record, end: Ended, destination: Destination | None, ids: tuple[str, str]) -> list[Call]:
    """The calls by which a destination, and whoever asked to be called back, are told. None of those tell others."""
    call = record.call
    if call.target:
        return []
    told = []
    if destination is not None and (destination.url or call.depth < DEEPEST):
        function, target = (call.function, destination.url) if destination.url else (destination.function, "")
        body = msgspec.json.encode(notice(record, end))
        told.append(Call(ids[0], function, end.at, headers=_json(call), body=body, target=target, depth=call.depth + 1))
    if call.callback:
        headers = {"minik8s-call": call.id, "minik8s-function": call.function, "minik8s-status": str(end.result.code),
                   **({"minik8s-error": _printable(end.result.error)} if end.result.error else {}),
                   "content-type": end.result.contentType or "application/octet-stream", **_trace(call)}  # fmt: skip
        told.append(Call(ids[1], call.function, end.at, headers=headers, body=end.result.body, target=call.callback,
                         depth=call.depth + 1))  # fmt: skip
    return told


def _printable(text: str) -> str:
    """As the value of a header."""
    return "".join(each if " " <= each <= "~" else "?" for each in text[:200])


def _trace(call: Call) -> dict[str, str]:
    return {name: call.headers[name] for name in ("traceparent", "tracestate") if name in call.headers}


def _json(call: Call) -> dict[str, str]:
    return {"content-type": "application/json", **_trace(call)}


def notice(record: Record, end: Ended) -> dict[str, Any]:
    """What a destination gets: the fields in which AWS Lambda tells its destinations of a call."""
    call, result = record.call, end.result
    failed = "EventAgeExceeded" if result.error == TOO_OLD else "RetriesExhausted"
    condition = "Success" if end.phase == SUCCEEDED else failed
    response: dict[str, Any] = {"statusCode": result.code}
    if result.error:
        response["functionError"] = result.error
    payload = document(result.body) if result.body else {"errorType": result.error, "errorMessage": result.cause} \
        if result.error else None  # fmt: skip
    return {
        "version": "1.0",
        "timestamp": rfc3339_milli(end.at),
        "requestContext": {"requestId": call.id, "function": call.function, "condition": condition,
                           "approximateInvokeCount": end.attempts},
        "requestPayload": document(call.body),
        "responseContext": response,
        "responsePayload": payload,
    }  # fmt: skip
