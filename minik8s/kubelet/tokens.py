"""ServiceAccount tokens for pods, asked from the API by TokenRequest and renewed at 80 % of their life."""

from __future__ import annotations

from typing import NamedTuple

from minik8s.api.errors import StatusError
from minik8s.api.kinds.pod import Pod
from minik8s.api.kinds.serviceaccount import ServiceAccount
from minik8s.client.base import Client
from minik8s.clock import Clock, parse_time

RENEW_AT = 0.8  # of its life; kubelet's token manager
LONGEST = 24 * 3600.0  # seconds after which a token is renewed in any case


class _Token(NamedTuple):
    text: str
    renew_at: float
    expires: float


class Tokens:
    def __init__(self, client: Client, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._held: dict[str, dict[tuple[str, int], _Token]] = {}  # by pod uid, then audience and life

    async def get(self, pod: Pod, audience: str, seconds: int) -> str:
        """A token that lives on for a while; the old one as long as it is valid when the API does not answer."""
        held = self._held.setdefault(pod.metadata.uid, {})
        known = held.get((audience, seconds))
        if known is not None and self._clock() < known.renew_at:
            return known.text
        try:
            fresh = await self._request(pod, audience, seconds)
        except StatusError:
            if known is not None and self._clock() < known.expires:
                return known.text
            raise
        held[audience, seconds] = fresh
        return fresh.text

    async def _request(self, pod: Pod, audience: str, seconds: int) -> _Token:
        meta = pod.metadata
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": [audience] if audience else [],
                "expirationSeconds": seconds,
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta.name, "uid": meta.uid},
            },
        }
        account = pod.spec.serviceAccountName or "default"
        answer = await self._client.post(ServiceAccount, account, meta.namespace, "token", body)
        status = answer["status"]
        now, expires = self._clock(), parse_time(status["expirationTimestamp"])
        return _Token(status["token"], now + min((expires - now) * RENEW_AT, LONGEST), expires)

    def renew_after(self, uid: str) -> float | None:
        """Seconds until the first of a pod's tokens is to be renewed."""
        held = self._held.get(uid)
        return max(min(token.renew_at for token in held.values()) - self._clock(), 1.0) if held else None

    def forget(self, uid: str) -> None:
        self._held.pop(uid, None)
