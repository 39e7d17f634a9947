"""Bootstrap tokens that have expired are deleted, as kube-controller-manager's tokencleaner does.

Not at once: for a while a machine that comes too late is told that its token has expired, and not that there is none.
"""

from __future__ import annotations

import base64
from typing import ClassVar

from minik8s.api.errors import NotFound
from minik8s.api.kinds.secret import Secret
from minik8s.client.base import Client
from minik8s.client.controller import Controller
from minik8s.client.informer import Informers
from minik8s.clock import Clock, parse_time

BOOTSTRAP_TYPE = "bootstrap.kubernetes.io/token"
NAMESPACE = "kube-system"
KEEP = 3600.0  # seconds after its end


def end_of(secret: Secret) -> float | None:
    """When a bootstrap token expires, Unix seconds; None if never, or if it does not say it in a way that counts."""
    try:
        return parse_time(base64.b64decode(secret.data.get("expiration", "")).decode()) or None
    except ValueError:
        return None


class TokenCleaner(Controller):
    name: ClassVar[str] = "token-cleaner"
    workers: ClassVar[int] = 1

    def __init__(self, client: Client, informers: Informers, clock: Clock) -> None:
        super().__init__(client, informers)
        self._clock = clock
        self._secrets = informers.of(Secret)
        self._secrets.on_change(self._changed)

    def _changed(self, old: Secret | None, new: Secret | None) -> None:
        if new is not None and new.type == BOOTSTRAP_TYPE and new.metadata.namespace == NAMESPACE:
            self.queue.add(new.key)

    async def reconcile(self, key: str) -> float | None:
        secret = self._secrets.by_key(key)
        end = end_of(secret) if secret is not None else None
        if secret is None or end is None:
            return None
        left = end + KEEP - self._clock()
        if left > 0:
            return left
        meta = secret.metadata
        try:
            await self.client.delete(Secret, meta.name, meta.namespace, uid=meta.uid)
        except NotFound:
            return None
        self.log.info("expired token deleted", token=meta.name)
        return None
