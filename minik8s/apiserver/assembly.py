"""How the parts of the API server are put together; roles and tests call this and nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence

from minik8s.api.scheme import SCHEME, Scheme
from minik8s.apiserver import subresources
from minik8s.apiserver.admission import Chain, Step
from minik8s.apiserver.auth import Authenticator, Authorizer
from minik8s.apiserver.handler import Handler, OpenApi
from minik8s.apiserver.health import Health
from minik8s.apiserver.registry import Registry
from minik8s.apiserver.verbs import Verbs
from minik8s.apiserver.views import Views
from minik8s.apiserver.watch import Watches
from minik8s.clock import Clock, system_clock
from minik8s.store.watch_cache import WatchCache


def build_handler(
    cache: WatchCache,
    *,
    authenticator: Authenticator | None,
    authorizer: Authorizer,
    scheme: Scheme = SCHEME,
    steps: Sequence[Step] = (),
    openapi: OpenApi | None = None,
    health: Health | None = None,
    clock: Clock = system_clock,
    rng: random.Random | None = None,
) -> Handler:
    """The API server over an entered cache."""
    registry = Registry(cache, Chain(steps), clock=clock, rng=rng)
    views = Views(clock)
    watches = Watches(cache, views)
    verbs = Verbs(registry, views, watches)
    handler = Handler(
        scheme,
        verbs,
        authenticator=authenticator,
        authorizer=authorizer,
        subresources=subresources.answers(verbs),
        openapi=openapi,
        health=health,
    )
    handler.metrics.gauge("apiserver_longrunning_requests", "Watches that are open.", lambda: watches.open)
    return handler
