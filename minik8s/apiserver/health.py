"""`/livez`, `/readyz`, `/healthz`: named checks, each of which is well or says why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from minik8s.api.errors import NotFound
from minik8s.apiserver.request import ApiResponse

Check = Callable[[], str]  # "" = well, else what is wrong, in words
ENDPOINTS = ("livez", "readyz", "healthz")
_TEXT = "text/plain; charset=utf-8"
_LIVE: dict[str, Check] = {"ping": lambda: ""}


class Health:
    """That the process answers says that it lives; `ready` checks say besides whether it can serve."""

    def __init__(self) -> None:
        self._ready: dict[str, Check] = {}

    def add_ready(self, name: str, check: Check) -> None:
        self._ready[name] = check

    def answer(self, path: str, query: Mapping[str, str]) -> ApiResponse:
        """`/readyz`, `/readyz?verbose`, `/readyz?exclude=NAME`, `/readyz/NAME`; 200 `ok`, or 500 and what fails."""
        endpoint, _, single = path.strip("/").partition("/")
        checks = _LIVE | (self._ready if endpoint == "readyz" else {})
        if single:
            if single not in checks:
                raise NotFound(f'there is no check "{single[:80]}", there are {", ".join(checks)}')
            checks = {single: checks[single]}
        checks.pop(query.get("exclude", ""), None)
        faults = {name: fault for name, check in checks.items() if (fault := check())}
        if not faults and "verbose" not in query:
            return ApiResponse(200, b"ok", _TEXT)
        lines = [f"[-]{name} failed: {faults[name]}" if name in faults else f"[+]{name} ok" for name in checks]
        lines.append(f"{endpoint} check {'failed' if faults else 'passed'}")
        return ApiResponse(500 if faults else 200, ("\n".join(lines) + "\n").encode(), _TEXT)
