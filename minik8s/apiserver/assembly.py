"""How the parts of the API server are put together; roles and tests call this and nothing else."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

from minik8s.api.scheme import SCHEME, Scheme
from minik8s.apiserver import reviews, subresources
from minik8s.apiserver.admission import Chain, Step
from minik8s.apiserver.allocator import ServiceAllocator
from minik8s.apiserver.auth import Authenticator, Authorizer
from minik8s.apiserver.escalation import Escalation, Rights
from minik8s.apiserver.handler import Answer, Handler, OpenApi
from minik8s.apiserver.health import Health
from minik8s.apiserver.registry import Registry
from minik8s.apiserver.resource_metrics import ResourceMetrics
from minik8s.apiserver.reviews import RuleSource
from minik8s.apiserver.steps import TOLERATED_SECONDS, standard_steps
from minik8s.apiserver.subresources import Budget
from minik8s.apiserver.token_request import TokenIssuer, TokenRequests
from minik8s.apiserver.verbs import Verbs
from minik8s.apiserver.views import Views
from minik8s.apiserver.watch import Watches
from minik8s.clock import Clock, system_clock
from minik8s.metrics import labels
from minik8s.store.watch_cache import WatchCache


class RuleBook(RuleSource, Rights, Protocol):
    """An authorizer that can list rules and compare them."""


def build_handler(
    cache: WatchCache,
    *,
    authenticator: Authenticator | None,
    authorizer: Authorizer,
    service_cidr: str = "10.96.0.0/12",
    allocator: ServiceAllocator | None = None,
    scheme: Scheme = SCHEME,
    steps: Sequence[Step] = (),
    rules: RuleBook | None = None,
    tokens: TokenIssuer | None = None,
    budget: Budget | None = None,
    openapi: OpenApi | None = None,
    health: Health | None = None,
    clock: Clock = system_clock,
    rng: random.Random | None = None,
    tolerated_seconds: int = TOLERATED_SECONDS,
    usage: ResourceMetrics | None = None,
    more_answers: Mapping[tuple[str, str], Answer] | None = None,
) -> Handler:
    """The API server over an entered cache.

    `allocator` gives Services their addresses (unless given: out of `service_cidr`), and is run by who gives it.
    `steps` come after the standard ones; `rules` knows users' rights, for `auth can-i --list` and so that nobody gives
    away more than they have; `tokens` issues ServiceAccount tokens; `budget` says which pods may not be evicted;
    `tolerated_seconds` is how long pods stay on a node that is not ready; `usage` answers metrics.k8s.io;
    `more_answers` are those of subresources, by (subresource, verb), that parts above the API server give.
    """
    allocator = allocator or ServiceAllocator(cache, service_cidr, rng=rng)
    guards = [Escalation(cache, rules)] if rules is not None else []
    chain = Chain([*standard_steps(cache, rng=rng, tolerated_seconds=tolerated_seconds), *guards, allocator, *steps])
    registry = Registry(cache, chain, clock=clock, rng=rng)
    watches = Watches(cache, views := Views(clock))
    verbs = Verbs(registry, views, watches)
    answers: dict[tuple[str, str], Answer] = dict(subresources.answers(verbs, budget=budget))
    answers |= more_answers or {}
    if tokens is not None:
        answers["token", "create"] = TokenRequests(registry, tokens).create
    acts = subresources.Acts(registry, budget)
    handler = Handler(
        scheme,
        verbs,
        authenticator=authenticator,
        authorizer=authorizer,
        subresources=answers,
        virtuals={
            **reviews.answers(authenticator, authorizer, rules=rules),
            **(usage.answers() if usage is not None else {}),
            ("", "v1", "bindings"): acts.bind,
        },
        openapi=openapi,
        health=health,
    )
    handler.metrics.gauge("apiserver_longrunning_requests", "Watches that are open.", lambda: watches.open)
    handler.metrics.gauge("apiserver_storage_revision", "The newest revision of the head.", lambda: cache.revision)
    handler.metrics.gauges(
        "apiserver_storage_objects", "Stored objects by resource.",
        lambda: ((labels(resource=name), count) for name, count in cache.sizes().items()),
    )  # fmt: skip
    return handler
